"""The page: signed in once by a URL or by a token, the whole way from a file to a study, nothing from elsewhere."""

import re
from html.parser import HTMLParser

import pytest

from advisor.service.pages.routes import STATIC, chart_of

HOSTILE = b"a,<script>alert(1)</script>,y\n" + b"\n".join(
    b"%d,<img src=x onerror=alert(%d)>,%s" % (i % 7, i % 3, b"yes" if i % 7 > 2 else b"no") for i in range(60)
)


class Page(HTMLParser):
    """What a browser would fetch or run, and the labels of its fields."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.inline, self.fields, self.labels, self._open = [], [], 0, 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self._open.append(tag)
        self.fetched += [given[name] for name in ("src", "action") if name in given]
        self.fetched += [given["href"]] if tag == "link" else []
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in given) else []
        if tag in ("input", "select") and given.get("type") != "checkbox":
            self.fields += 1
        if tag == "label":
            self.labels += 1


def check_page(answer):
    page = Page(answer.text)
    assert all(re.match(r"/(?!/)", place) for place in page.fetched), page.fetched
    assert not page.inline and page.labels >= page.fields
    assert '<html lang="en">' in answer.text and 'name="viewport"' in answer.text
    return answer.text


@pytest.fixture
def browser(client):
    """A browser that opened the one-time URL."""
    token = client.app_itself.state.service.door.give_once(
        client.app_itself.state.service.door.of_token(client.tokens["admin"]).token
    )
    headers, client.headers = client.headers, {}
    first = client.get(f"/?once={token}", follow_redirects=False)
    assert first.status_code == 303 and first.headers["location"] == "/"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert client.get(f"/?once={token}", follow_redirects=False).status_code == 403
    client.headers = {"Origin": "http://127.0.0.1:8571"}
    yield client
    client.headers = headers
    client.cookies.clear()


def test_without_a_session_there_is_only_the_way_in(client):
    headers, client.headers = client.headers, {}
    for place in ("/", "/tokens", "/runs/rn_0", "/compare"):
        answer = client.get(place, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    check_page(client.get("/login"))
    wrong = client.post("/login", data={"token": "adv_x_y"})
    assert wrong.status_code == 401 and "not valid" in wrong.text
    right = client.post("/login", data={"token": client.tokens["read"]}, follow_redirects=False)
    assert right.status_code == 303
    assert "Tokens" not in check_page(client.get("/"))
    assert client.get("/tokens").status_code == 403
    client.headers = headers
    client.cookies.clear()


def test_a_session_needs_a_page_of_ours(browser):
    own, browser.headers = browser.headers, {}
    assert browser.post("/logout").status_code == 403  # neither Origin nor Sec-Fetch-Site
    browser.headers = {"Origin": "http://evil.example"}
    assert browser.post("/logout").status_code == 403
    browser.headers = own
    assert browser.post("/logout", follow_redirects=False).headers["location"] == "/login"
    assert browser.get("/", follow_redirects=False).status_code == 303


def test_from_a_hostile_file_to_its_recommendation_and_runs(browser):
    dataset = browser.upload(HOSTILE, "<b>x.csv")
    text = check_page(browser.get(f"/datasets/{dataset}"))
    assert "<img" not in text and "&lt;img src=x" in text
    answer = browser.post(f"/datasets/{dataset}/advise", data={"target": "y"}, follow_redirects=False)
    place = answer.headers["location"]
    text = check_page(browser.get(place))
    assert "learning_rate" in text and "<script>alert" not in text
    report = browser.get(f"/v1{place}/report")
    assert "<img src=x" not in report.text and "sandbox" in report.headers["content-security-policy"]
    queued = browser.post(f"{place}/runs", data={"trials": "2", "minutes": "1"}, follow_redirects=False)
    run = queued.headers["location"]
    assert "queued" in check_page(browser.get(run)) or "running" in browser.get(run).text
    check_page(browser.post(f"{run}/stop"))
    assert "<html" not in browser.get(f"{run}/live").text
    study = browser.post("/v1/studies", json={"recommendation": place.rpartition("/")[2], "trials": 3}).json()
    trial = browser.post(f"/v1/studies/{study['id']}/trials").json()["trial"]
    browser.post(f"/v1/studies/{study['id']}/trials/{trial['number']}/complete", json={"value": 0.5})
    assert "0.5" in check_page(browser.get(f"/studies/{study['id']}"))
    side = check_page(browser.get("/compare", params={"run": run.rpartition("/")[2], "study": study["id"]}))
    assert "learning_rate" in side
    home = check_page(browser.get("/"))
    assert dataset in home and study["id"] in home
    assert browser.get("/recommendations/rc_0").status_code == 404


def test_tokens_are_made_and_revoked(browser):
    page = check_page(browser.post("/tokens", data={"name": "<i>ci", "scope": "read"}))
    secret = re.search(r"adv_\w+?_[\w-]+", page)[0]
    assert "&lt;i&gt;ci" in page and secret not in browser.get("/tokens").text
    own = {"Authorization": f"Bearer {secret}"}
    made = browser.get("/v1/me", headers=own).json()["token"]
    check_page(browser.post(f"/tokens/{made}/revoke"))
    assert browser.get("/v1/me", headers=own).status_code == 401
    assert browser.post("/tokens", data={"name": "x", "scope": "root"}).status_code == 422


def test_the_script_and_the_style_ask_nobody_else(browser):
    for name in ("app.js", "style.css"):
        text = browser.get(f"/static/{name}").text
        assert text == (STATIC / name).read_text() and "//" not in re.sub(
            r"^\s*//.*|; +//.*", "", text, flags=re.M
        )
    assert browser.get("/static/..%2froutes.py").status_code == 404


def test_a_chart_shows_each_value_and_the_best_so_far():
    assert chart_of([1.0]) is None
    chart = chart_of([3.0, 1.0, 2.0])
    assert len(chart["points"]) == 3 and (chart["low"], chart["trials"]) == (1.0, 3)
    heights = [float(pair.split(",")[1]) for pair in chart["line"].split()]
    assert heights == sorted(heights)
