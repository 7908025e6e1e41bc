"""Parameters and spaces: narrowing, and that everything suggested or enqueued
lies inside its distribution (D12)."""

import pickle

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.errors import UserError
from advisor.rules import shipped
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Derivation, Row, Space, load_space

optuna.logging.set_verbosity(optuna.logging.ERROR)
BASE = shipped.base_space()


def asked(space, enqueued=None, seed=0):
    """One trial's configuration, its parameters and its distributions."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    if enqueued is not None:
        study.enqueue_trial(enqueued)
    trial = study.ask()
    configuration = space.suggest(trial)
    for name, distribution in trial.distributions.items():
        assert distribution._contains(distribution.to_internal_repr(trial.params[name])), name
    return configuration, trial.params


def small_space(**changes):
    parameters = [
        Parameter("kind", "categorical", "a", choices=("a", "b")),
        Parameter("depth", "int", 2, low=1, high=8, when='kind == "b"'),
        Parameter("decay", "float", 0.0, low=0.001, high=1.0, log=True, zero=True),
        Parameter("start", "categorical", "x", choices=("x", "y"), searched=False),
        Parameter("folds", "int", 5, low=2, high=20, searched=False),
    ]
    return Space({item.name: item for item in parameters}, **changes)


FOLLOWS_KIND = Derivation(
    (Row('kind == "b" and depth > limits.depth', "y"), Row(None, "x")), {"limits.depth": 3}
)


# The shipped space


def test_the_base_space_declares_every_parameter_with_topic_meaning_and_default():
    assert len(BASE.parameters) == 53
    assert all(item.meaning and item.topic for item in BASE.parameters.values())
    defaults = BASE.complete({})
    library = {"hidden_layers": 2, "width": 128, "activation": "relu", "norm": "none", "weight_init": "torch_default",
               "optimizer": "adam", "learning_rate": 1e-3, "schedule": "constant", "batch_size": 128, "epochs": 100,
               "patience": 10, "validation": "holdout", "dropout": 0.0, "weight_decay": 0.0}  # fmt: skip
    assert {name: defaults[name] for name in library} == library
    assert [name for name, item in BASE.parameters.items() if not item.searched] == [
        "weight_init", "embedding_dim", "loss", "monitor", "validation", "folds", "validation_fraction", "validation_weights", "epochs",
        "patience", "gpus_per_trial", "final_members", "calibration", "decision",
    ]  # fmt: skip


# One parameter


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"type": "number", "default": 1}, "type 'number' is not one of"),
        ({"type": "int", "default": 1, "low": 3, "high": 2}, "above high"),
        ({"type": "int", "default": 9, "low": 1, "high": 2}, "default: 9 is outside 1 to 2"),
        ({"type": "int", "default": 1, "low": 1.5, "high": 2}, "low must be a whole number"),
        ({"type": "float", "default": 1, "low": "1e-3", "high": 2}, "low must be a number"),
        ({"type": "float", "default": 1, "low": 1, "high": float("inf")}, "high must be a number"),
        ({"type": "float", "default": 1, "low": 0, "high": 2, "log": True}, "above 0 with log"),
        ({"type": "float", "default": 1, "low": 0, "high": 2, "zero": True}, "above 0 with zero"),
        ({"type": "float", "default": 1}, "low must be a number, not nothing"),
        ({"type": "categorical", "default": "a"}, "choices are missing"),
        ({"type": "categorical", "default": "a", "choices": ("a", "a")}, "given twice"),
        ({"type": "categorical", "default": "a", "choices": ("a", False)}, "mix"),
        ({"type": "categorical", "default": "c", "choices": ("a", "b")}, "not one of a, b"),
        ({"type": "categorical", "default": "a", "choices": ("a",), "low": 1}, "for int and float"),
        ({"type": "int", "default": 1, "low": 1, "high": 2, "choices": (1,)}, "for categorical"),
    ],
)
def test_a_parameter_that_does_not_fit_together_cannot_exist(arguments, part):
    with pytest.raises(UserError) as caught:
        Parameter("p", **arguments)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("learning_rate", "1e-3", "'1e-3' is not a number (write 1.0e-3); allowed is 0.0001 to 0.1"),
        ("learning_rate", "0.001", "(write 0.001 without quotes)"),
        ("learning_rate", 5.0, "outside 0.0001 to 0.1"),
        ("learning_rate", float("nan"), "not a number"),
        ("dropout", 0.001, "outside 0 or 0.01 to 0.6"),
        ("width", 2.0, "2.0 is not a whole number"),
        ("width", True, "true is not a whole number"),
        ("width", 10**400, "not a whole number"),
        ("block", "residul", "did you mean 'residual'?"),
        ("linear_skip", 1, "1 is not one of false, true"),
        ("linear_skip", "true", "'true' is not one of false, true"),
        ("norm", False, "false is not one of none, batch, layer"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(name, value, part):
    with pytest.raises(UserError) as caught:
        BASE.complete({name: value})
    assert part in str(caught.value) and str(caught.value).startswith(name)


def test_narrowing_clips_the_default_and_takes_single_values_out_of_the_search():
    rate = BASE["learning_rate"].narrowed(2e-3, 1.0)
    assert (rate.low, rate.high, rate.default, rate.searched) == (2e-3, 0.1, 2e-3, True)
    assert not BASE["learning_rate"].narrowed(1e-2, 1e-2).searched
    assert BASE["norm"].restricted(["layer", "batch"]).choices == ("batch", "layer")
    assert BASE["norm"].restricted(["batch"]).default == "batch"
    assert BASE["width"].narrowed(20.2, 30.9).high == 30
    for cut in (lambda: BASE["width"].narrowed(2000, 3000), lambda: BASE["norm"].restricted(["x"])):
        with pytest.raises(UserError, match="nothing is left"):
            cut()


def test_zero_beside_a_range_stays_only_where_the_new_range_contains_it():
    decay = BASE["weight_decay"]
    assert decay.narrowed(0, 0.1).zero and decay.narrowed(0, 0.1).default == 0
    assert not decay.narrowed(1e-3, 0.1).zero and decay.narrowed(1e-3, 0.1).default == 1e-3
    assert decay.narrowed(1e-3, 0.1, keep_zero=True).zero
    assert type(decay.nearest(1e-9)) is float and decay.nearest(1e-9) == 0
    off = decay.narrowed(0, 0)
    assert not off.searched and off.default == 0


# A space


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"parameters": {"a": Parameter("b", "int", 1, low=1, high=2)}}, "is called 'b'"),
        ({"derivations": {"kind": FOLLOWS_KIND}}, "cannot be derived"),
        ({"derivations": {"strat": FOLLOWS_KIND}}, "did you mean 'start'?"),
        ({"derivations": {"start": Derivation((Row(None, "z"),))}}, "'z' is not one of x, y"),
        (
            {"derivations": {"start": Derivation((Row("knd > 1", "x"),))}},
            "unknown name 'knd' (did you mean 'kind'?)",
        ),
        ({"derivations": {"start": Derivation((Row(None, "= depth"),))}}, "is a number"),
        ({"derivations": {"start": Derivation(())}}, "without rows"),
        ({"derivations": {"folds": Derivation((Row(None, "= folds + 1"),))}}, "circle: folds"),
    ],
)
def test_a_space_that_does_not_fit_together_cannot_exist(change, part):
    space = small_space()
    with pytest.raises(UserError) as caught:
        Space(**{"parameters": space.parameters, **change})
    assert part in str(caught.value)


def test_conditions_in_a_circle_are_refused():
    one = Parameter("one", "int", 1, low=1, high=2, when="two > 1")
    two = Parameter("two", "int", 1, low=1, high=2, when="one > 1")
    with pytest.raises(UserError, match="circle: one, two"):
        Space({"one": one, "two": two})


def test_an_inactive_parameter_keeps_its_default_and_is_not_suggested():
    space = small_space()
    assert space.complete({"kind": "a", "depth": 7})["depth"] == 2
    assert space.complete({"kind": "b", "depth": 7})["depth"] == 7
    assert "depth" not in space.encode(space.complete({"kind": "a"}))
    with pytest.raises(UserError, match="depth: 7 is not possible, only 2: it is not used unless kind"):
        space.encode({**space.complete({"kind": "a"}), "depth": 7})


def test_zero_is_a_question_of_its_own_for_optuna():
    space = small_space()
    assert space.encode(space.complete({})) == {"kind": "a", "decay.on": False}
    trial = optuna.trial.FixedTrial({"kind": "a", "decay.on": False})
    assert type(space.suggest(trial)["decay"]) is float
    assert space.encode(space.complete({"decay": 0.5})) == {"kind": "a", "decay.on": True, "decay": 0.5}


def test_derived_parameters_follow_and_are_never_suggested():
    space = small_space(derivations={"start": FOLLOWS_KIND})
    assert space.complete({"kind": "b", "depth": 4})["start"] == "y"
    assert space.complete({"kind": "b", "depth": 3, "start": "y"})["start"] == "x"
    assert "start" not in space.searched
    with pytest.raises(UserError, match="start: 'y' is not possible, only 'x': it is computed"):
        space.validate({**space.complete({}), "start": "y"})


def test_a_computed_number_is_rounded_and_kept_inside_its_parameter():
    space = small_space(derivations={"folds": Derivation((Row(None, "= 3.6 * depth"),))})
    assert space.complete({"kind": "b", "depth": 2})["folds"] == 7
    assert space.complete({"kind": "b", "depth": 8})["folds"] == 20
    broken = small_space(derivations={"folds": Derivation((Row(None, "= 1 / (depth - depth)"),))})
    assert broken.complete({})["folds"] == 5


def test_fixed_values_leave_the_search_and_stop_being_derived():
    space = small_space(derivations={"start": FOLLOWS_KIND}).fixed({"start": "y", "kind": "b", "decay": 0.25})
    assert space.searched == ("depth",)
    for seed in range(5):
        configuration, _ = asked(space, seed=seed)
        assert (configuration["start"], configuration["kind"], configuration["decay"]) == ("y", "b", 0.25)
    with pytest.raises(UserError, match="kind: 'a' is not possible, only 'b': it is not searched"):
        space.encode({**space.complete({}), "kind": "a"})


def test_validate_names_what_is_unknown_missing_or_outside():
    whole = BASE.complete({})
    for wrong, part in [
        ({**whole, "widht": 3}, "unknown parameter 'widht' (did you mean 'width'?)"),
        ({name: value for name, value in whole.items() if name != "width"}, "width: missing"),
        ({**whole, "width": 3}, "width: 3 is outside"),
        ({**whole, "folds": 7}, "folds: 7 is not possible, only 5"),
    ]:
        with pytest.raises(UserError) as caught:
            BASE.encode(wrong)
        assert part in str(caught.value)


def test_the_nearest_configuration_can_always_be_encoded():
    space = BASE.narrowed("learning_rate", 3e-3, 3e-2).restricted("optimizer", ["adamw", "nadam"])
    space = space.fixed({"width": 64}).with_default("optimizer", "nadam")
    near = space.nearest(BASE.complete({}))
    assert (near["learning_rate"], near["optimizer"], near["width"]) == (3e-3, "nadam", 64)
    assert asked(space, space.encode(near))[0] == near


def test_a_space_survives_dict_and_pickle():
    space = small_space(derivations={"start": FOLLOWS_KIND})
    for copy in (Space.from_dict(space.to_dict()), pickle.loads(pickle.dumps(space))):
        assert copy == space
        assert copy.complete({"kind": "b", "depth": 4}) == space.complete({"kind": "b", "depth": 4})


# Reading a file


def one(declaration):
    return f"format: 1\nparameters:\n  {declaration}"


WRONG_FILES = [
    ("- 1", "s.yaml:1: a search space is a mapping"),
    ("format: 2\nparameters: {}", "s.yaml:1: format: must be 1, not 2"),
    ("format: 1\nparamters: {}", "s.yaml:2: paramters: unknown key (did you mean 'parameters'?)"),
    (one("p: {type: int, default: 1, low: 1, hihg: 2}"), "s.yaml:3: parameters.p.hihg: unknown key"),
    (
        one("p: {type: float, default: 1.0, low: 1e-3}"),
        "s.yaml:3: parameters.p.low: '1e-3' is of the wrong type",
    ),
    (one("p: {type: int, low: 1, high: 2}"), "s.yaml:3: parameters.p: default is missing"),
    (
        one("p: {type: int, default: 7, low: 1, high: 2}"),
        "s.yaml:3: parameters.p: default: 7 is outside 1 to 2",
    ),
    (one("p: {type: int, default: 1, low: 1, high: 2, when: q > 1}"), "s.yaml:3: p: when: unknown name 'q'"),
    (one("a-b: {type: int, default: 1, low: 1, high: 2}"), "s.yaml:3: parameters.a-b: a parameter's name"),
    (one("p: 3"), "s.yaml:3: parameters.p: must be a mapping"),
    ("format: 1\nformat: 1", "s.yaml:2: format: this key is already given above"),
    ("format: 1\nparameters: &a {}\nderivations: *a", "s.yaml:2: anchors and aliases"),
    ("format: 1\nparameters: {p: 2026-11-23}", "s.yaml:2: 2026-11-23 is read as a date"),
    ("format: 1\nparameters: {p: 010}", "s.yaml:2: 010 would be read in base 8"),
    ("format: 1\nparameters: {p: 1:30}", "s.yaml:2: 1:30 would be read in base 8, 16 or 60"),
    ("format: 1\nparameters: {on: 1}", "s.yaml:2: the key on is read as a boolean"),
    ("format: 1\nparameters: !!python/name:os.system x", "s.yaml:2: tags such as"),
    (
        "format: 1\nparameters: a: b",
        "s.yaml:2: not YAML: mapping values are not allowed in this context (quote",
    ),
    ("format: 1\n---\nformat: 1", "s.yaml:2: a second document"),
    ("[" * 100_000, "s.yaml:1: nested deeper than 30 levels"),
    ("format: 1\nparameters: {p: \x00}", "s.yaml: not YAML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES, ids=range(len(WRONG_FILES)))
def test_a_wrong_file_is_one_line_with_its_place(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_space("s.yaml")
    assert str(caught.value).startswith(message)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "large.yaml").write_text("# " + "x" * 1_000_001)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name, part in [
        ("none.yaml", "not a file"),
        ("large.yaml", "larger than"),
        ("bytes.yaml", "not UTF-8"),
    ]:
        with pytest.raises(UserError, match=part):
            load_space(tmp_path / name)


# Properties, with Optuna itself


@st.composite
def narrowed_spaces(draw):
    """The base space after a few random narrowings, fixings and new defaults."""
    space = BASE
    for name in draw(st.lists(st.sampled_from(sorted(BASE.searched)), max_size=12, unique=True)):
        parameter = space[name]
        if parameter.type == "categorical":
            chosen = draw(st.lists(st.sampled_from(parameter.choices), min_size=1, unique=True))
            space = space.restricted(name, chosen)
        else:
            number = st.floats(parameter.low, parameter.high)
            low, high = sorted([draw(number), draw(number)])
            try:
                space = space.with_parameters(parameter.narrowed(low, high, keep_zero=draw(st.booleans())))
            except UserError as error:
                assert "nothing is left" in str(error)
        if draw(st.integers(0, 3)) == 0:
            space = space.fixed({name: space[name].default})
    follows = Derivation((Row('activation == "tanh"', "xavier_normal"), Row(None, "he_normal")), rule="r")
    return space.derived("weight_init", follows) if draw(st.booleans()) else space


@settings(max_examples=120, derandomize=True, deadline=None)
@given(narrowed_spaces(), st.integers(0, 2**31))
def test_what_is_suggested_and_enqueued_lies_inside_and_comes_back(space, seed):
    suggested, params = asked(space, seed=seed)
    assert list(suggested) == list(BASE.parameters)
    assert space.encode(suggested) == params
    again, params_again = asked(space, space.encode(suggested), seed=seed + 1)
    assert again == suggested and params_again == params
    default = space.complete({})
    assert asked(space, space.encode(default), seed=seed)[0] == default
    library = space.nearest(BASE.complete({}))
    assert asked(space, space.encode(library), seed=seed)[0] == library
    assert Space.from_dict(space.to_dict()) == space


def test_a_space_without_some_parameters_gives_the_others_as_before():
    space = BASE
    fewer = space.without({"time_trend"})
    assert "time_trend" not in fewer.parameters
    assert fewer.complete({}) == {
        name: value for name, value in space.complete({}).items() if name != "time_trend"
    }
    with pytest.raises(UserError, match="optimizer"):
        space.without({"optimizer"})  # the momentum asks for it
