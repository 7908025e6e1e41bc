"""Facts of training code: each is measured by one measure, when a rule asks for it, and is of its kind."""

import pytest
import torch
from torch import nn

import advisor
from advisor.checks.findings import judging
from advisor.checks.findings.judging import MEASURED_BY, MEASURES, ModuleFacts, findings_of, module_rules
from advisor.checks.watching import FAMILIES
from advisor.facts.module_schema import EXPERIMENTS, MODULE_FACTS
from advisor.rules.book import fact_names

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
KINDS = {"number": int | float, "text": str, "boolean": bool, "list": list}
RULE = """
format: 1
rules:
- id: wide-enough-for-us
  title: Our networks have no layer of fewer than 64 units
  topic: training_code
  applies_to: [module]
  strength: may
  limits: {units: 64}
  when: layers.narrowest < limits.units
  then:
    finding:
      {severity: warning, code: narrow, category: architecture, fix: 'at least {limits.units:d}', where: '= layers.narrowest_names'}
  because: 'A layer has {layers.narrowest} units.'
  why: It is what we know.
  references:
    - {cite: Somebody, url: 'https://example.org/x', says: it is so}
  evidence: folklore
  examples:
    - {given: {layers.narrowest: 63}, expect: {finding: narrow}}
    - {given: {layers.narrowest: 64}, expect: does not fire}
"""


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_every_fact_has_one_measure_or_is_known_to_a_watched_loop():
    names = [name for one in MEASURES for name in one.names]
    assert len(names) == len(set(names)) and set(names) <= set(MODULE_FACTS)
    assert {name.partition(".")[0] for name in set(MODULE_FACTS) - set(names)} <= set(FAMILIES)
    effects = {rule.finding.effect for rule in module_rules()} - {""}
    assert effects <= set(EXPERIMENTS)


class Seen(ModuleFacts):
    """The facts of the last inspection."""

    last = None

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        Seen.last = self


@pytest.mark.parametrize("sound", [True, False])
def test_facts_are_of_their_kind(sound, monkeypatch):
    monkeypatch.setattr("advisor.checks.inspection.ModuleFacts", Seen)
    middle = [] if sound else [nn.Sigmoid(), nn.Linear(32, 32), nn.Softmax(dim=1)]
    module = nn.Sequential(
        nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), *middle, nn.Dropout(0.2), nn.Linear(32, 2)
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1)

    def step(module, optimizer, loss, x, y):
        optimizer.zero_grad()
        loss(module(x), y).backward()
        optimizer.step()

    loss = nn.CrossEntropyLoss()
    advisor.inspect(
        module, X, (X[:, 0] > 0).long(), loss=loss, optimizer=optimizer, epochs=4, rows=64, step=step
    )
    names = fact_names(MODULE_FACTS)
    for name in MODULE_FACTS:
        value = Seen.last[name]
        assert value is None or isinstance(value, KINDS[names[name].kind]), name
        assert names[name].kind == "boolean" or not isinstance(value, bool), name
    assert Seen.last["loop.judged"] > 2 and Seen.last["trials.steps"] == 30
    assert Seen.last["layers.saturating"] == (0 if sound else 2)


def test_a_fact_is_measured_once_and_only_when_a_rule_asks(monkeypatch):
    asked = []
    monkeypatch.setattr(
        judging,
        "MEASURED_BY",
        {name: judging.Measure(one.names, lambda case, one=one: asked.append(one.names) or one.run(case))
         for name, one in MEASURED_BY.items()},
    )  # fmt: skip
    module = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    advisor.inspect(
        module, X, X[:, :1], loss=nn.MSELoss(), optimizer=torch.optim.Adam(module.parameters(), lr=1e-2)
    )
    assert len(asked) == len(set(asked))
    measured = {name for names in asked for name in names}
    assert (
        "inputs.mean_max" in measured
        and not {"scaled_inputs.loss", "no_decay.loss", "straightened.loss"} & measured
    )


def test_a_packs_rules_are_judged_by_inspect_and_watch(tmp_path):
    (tmp_path / "ours.yaml").write_text(RULE)
    module = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    found = {f.code: f for f in advisor.inspect(module, X, X[:, :1], rules=[tmp_path]).findings}["narrow"]
    assert (found.where, found.fix, found.rule) == (("0",), "at least 64", "wide-enough-for-us")
    assert found.page == "rules/wide-enough-for-us.md"
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for without, told in ((), ["narrow"]), (["wide-enough-for-us"], []):
        with advisor.watch(
            module, optimizer, tell=lambda f: None, rules=[tmp_path], without=without
        ) as watched:
            optimizer.zero_grad()
            nn.functional.mse_loss(module(X), X[:, :1]).backward()
            optimizer.step()
        assert [finding.code for finding in watched.findings] == told


def test_of_one_code_the_gravest_is_told_and_nothing_is_said_of_what_is_not_known():
    assert findings_of(module_rules(), ModuleFacts(None)) == []
    facts = ModuleFacts(None, {"frozen.count": 2, "frozen.drawn": 1, "frozen.drawn_names": ["a"]})
    (finding,) = findings_of(module_rules(), facts)
    assert (finding.severity, finding.code, finding.where) == ("warning", "frozen-layers", ("a",))
    with pytest.raises(KeyError):
        facts["frozen.cuont"]
