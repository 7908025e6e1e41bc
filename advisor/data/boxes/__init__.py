"""Images with a list of boxes each: COCO's JSON, Pascal VOC's XML, YOLO's text files and tables of boxes.

Knows files and what people write into them. Must never know facts, rules or networks.
"""
