"""What is said of the machine."""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec

MACHINE_FACTS = (
    FactSpec(
        name="cores",
        type="int",
        unit="cores",
        meaning="processor cores that this process may use",
        example=8,
    ),
    FactSpec(
        name="memory.gb",
        type="float",
        unit="GB",
        meaning="memory of the machine (or of its container)",
        nullable=True,
        example=32.0,
    ),
    FactSpec(
        name="memory.available_gb",
        type="float",
        unit="GB",
        meaning="memory that is free for this process now",
        nullable=True,
        example=20.0,
    ),
    FactSpec(
        name="gpu.count",
        type="int",
        unit="GPUs",
        meaning="NVIDIA GPUs that nvidia-smi lists and this PyTorch may use",
        example=0,
    ),
    FactSpec(
        name="gpu.memory_gb",
        type="float",
        unit="GB",
        meaning="memory of the smallest GPU",
        nullable=True,
        example=24.0,
    ),
)
