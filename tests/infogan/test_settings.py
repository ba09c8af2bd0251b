"""A config is read, merged and checked so that what is wrong is named by path, value, rule and remedy."""

from pathlib import Path

import pytest
import yaml

from infogan import settings
from infogan.codes import CategoricalCode, ContinuousCode
from infogan.config import NEUTRAL, RUNTIME, RunConfig, Stop, digest, flatten, identity, to_plain
from infogan.description import describe
from infogan.networks import NETWORKS
from infogan.networks.paper import MNIST
from infogan.objectives import OBJECTIVES
from shards.errors import UserError

SMALL = """
codes:
  kind: {kind: categorical, ways: 10}
  c1: {kind: continuous, weight: 0.5}
network: {name: mnist}
batch: 64
"""


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def refusal(preset: Path | str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        settings.load(preset, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- precedence, and where a value comes from ---------------------------------------------------------------------


def test_an_override_beats_a_preset_which_beats_what_it_extends_which_beats_a_default(
    preset: Path, tmp_path: Path
) -> None:
    upper = tmp_path / "upper.yaml"
    upper.write_text("extends: small.yaml\nbatch: 32\nseed: 5\ncodes: {kind: {ways: 4}}\n")
    config = settings.load(upper, ["seed=7"]).config
    assert (config.seed, config.batch, config.accumulation) == (7, 32, 1)
    assert config.codes == {"kind": CategoricalCode(4), "c1": ContinuousCode(weight=0.5)}


def test_the_source_of_each_value_is_known(preset: Path, tmp_path: Path) -> None:
    upper = tmp_path / "upper.yaml"
    upper.write_text("extends: small.yaml\nbatch: 32\n")
    loaded = settings.load(upper, ["seed=7", "codes.c1.std=learned"])
    assert loaded.preset == "upper"
    assert loaded.sources["batch"] == str(upper)
    assert loaded.sources["codes.c1.weight"] == str(preset)
    assert loaded.sources["seed"] == "override seed=7"
    assert loaded.sources["codes.c1.std"] == "override codes.c1.std=learned"
    assert "accumulation" not in loaded.sources
    assert settings.load(upper, ["seed=1", "seed=2"]).config.seed == 2


@pytest.mark.parametrize("override", ["codes.c1=null", "codes={c1: null}"])
def test_null_removes_what_the_base_had(preset: Path, override: str) -> None:
    loaded = settings.load(preset, [override])
    assert list(loaded.config.codes) == ["kind"]
    assert not [path for path in loaded.sources if path.startswith("codes.c1")]


def test_null_in_a_preset_removes_what_it_extends_had(preset: Path, tmp_path: Path) -> None:
    upper = tmp_path / "upper.yaml"
    upper.write_text("extends: small.yaml\ncodes:\n  kind: null\n  style: {kind: categorical, ways: 3}\n")
    assert list(settings.load(upper).config.codes) == ["c1", "style"]


def test_a_base_is_looked_for_beside_the_preset_and_then_among_ours(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: paper/mnist\nbatch: 32\n")
    assert settings.load(mine).config.batch == 32
    assert settings.load(mine).config.network == MNIST()
    assert settings.load("configs/paper/mnist.yaml").config == settings.load("paper/mnist").config


def test_a_preset_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    assert "extends itself" in refusal(tmp_path / "a.yaml")


def test_an_exponent_without_a_point_is_a_number(preset: Path) -> None:
    assert settings.load(preset, ["optimizer.critic.lr=1e-4"]).config.optimizer.critic.lr == 1e-4


# ---- what is refused, and how -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=-1", "seed: -1: must be at least 0 and below 2147483648"),
        ("seed=2147483648", "seed: 2147483648: must be at least 0 and below 2147483648"),
        ("seed=1.5", "seed: 1.5: must be a whole number"),
        ("seed=true", "seed: True: must be a whole number"),
        ("seed=null", "seed: None: must be a whole number"),
        ("batch=1", "batch: 1: must be at least 2"),
        ("batch=many", "batch: 'many': must be a whole number"),
        ("accumulation=3", "accumulation: 3: must divide batch 64"),
        ("accumulation=0", "accumulation: 0: must divide batch 64"),
        ("threads=0", "threads: 0: must be at least 1"),
        ("check_interval=0", "check_interval: 0.0: must be above 0 and finite"),
        ("precision=fp8", "precision: 'fp8': must be one of auto, fp32, bf16, fp16, fp64"),
        ("device=tpu", "device: 'tpu': must be one of auto, cpu, cuda"),
        ("noise.size=-1", "noise.size: -1: must be at least 0"),
        ("noise.prior=gaussian", "noise.prior: 'gaussian': must be one of uniform, normal"),
        ("optimizer.critic.lr=0", "optimizer.critic.lr: 0.0: must be above 0 and finite"),
        ("optimizer.generator.lr=-1e-3", "optimizer.generator.lr: -0.001: must be above 0 and finite"),
        ("optimizer.critic.lr=.inf", "optimizer.critic.lr: inf: must be above 0 and finite"),
        ("optimizer.critic.lr=.nan", "optimizer.critic.lr: nan: must be above 0 and finite"),
        ("optimizer.critic.lr=fast", "optimizer.critic.lr: 'fast': must be a number"),
        ("optimizer.critic={}", "optimizer.critic.lr: missing; it has no default"),
        ("optimizer.betas=[0.5]", "optimizer.betas: [0.5]: must be a list of 2"),
        ("optimizer.betas=[0.5,1.0]", "optimizer.betas: 1.0: must be at least 0 and below 1"),
        ("optimizer.betas=0.5", "optimizer.betas: 0.5: must be a list of 2"),
        ("ema.half_life_kimg=0", "ema.half_life_kimg: 0.0: must be above 0 and finite"),
        ("ema.rampup=-1", "ema.rampup: -1.0: must be above 0 and finite"),
        ("log.every_kimg=0", "log.every_kimg: 0.0: must be above 0 and finite"),
        ("eval.every_kimg=0", "eval.every_kimg: 0.0: must be above 0 and finite"),
        ("checkpoint.keep=1", "checkpoint.keep: 1: must be at least 2"),
        ("checkpoint.every_kimg=-5", "checkpoint.every_kimg: -5.0: must be above 0 and finite"),
        ("data.reader=far", "data.reader: 'far': must be one of auto, resident, indexed, remote"),
        ("codes.kind.ways=1", "codes.kind.ways: 1: must be at least 2"),
        ("codes.kind.weight=-1", "codes.kind.weight: -1.0: must be at least 0"),
        ("codes.c1.std=free", "codes.c1.std: 'free': must be one of fixed, learned, clamped"),
        ("codes.c1.sigma=0", "codes.c1.sigma: 0.0: must be at least 1e-06 and below 1000000.0"),
        ("codes.c1.kind=binary", "codes.c1.kind: 'binary': must be one of categorical, continuous"),
        ("codes.new.weight=1", "codes.new: {'weight': 1}: must be a mapping with a `kind`"),
        ("codes.new=5", "codes.new: 5: must be a mapping with a `kind`"),
        ("codes={}", ""),
        ("codes.two-words={kind: continuous}", "codes: 'two-words': a code's name must be a word"),
        (
            "network.name=resnet",
            "network.name: 'resnet': must be one of chairs, colour32, faces, fashion_mnist, mnist, residual, spectral",
        ),
        ("network.norm=group", "network.norm: 'group': must be one of batch, none"),
        ("network.critic_slope=1", "network.critic_slope: 1.0: must be at least 0 and below 1"),
        ("objective.name=wgan", "objective.name: 'wgan': must be one of hinge, non_saturating"),
        ("objective.mi_gradient=trunk", "objective: {'mi_gradient': 'trunk'}: must be a mapping with a `name`"),
        ("objective={name: non_saturating, mi_gradient: q}", "objective.mi_gradient: 'q': must be one of critic, head"),
        ("stop=5000", "stop: 5000: must be a number and a unit, as in '5000 updates', '20 epochs', '640 kimg'"),
        ("stop=5 hours", "stop: '5 hours': must be a number and a unit"),
        ("stop=0 updates", "stop: '0 updates': must be one number above 0 and one unit"),
        ("stop=-5 kimg", "stop: '-5 kimg': must be one number above 0"),
        ("stop=inf kimg", "stop: 'inf kimg': must be one number above 0"),
        ("stop=nan kimg", "stop: 'nan kimg': must be one number above 0"),
        ("stop=5 kimg more", "stop: '5 kimg more': must be one number above 0 and one unit"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_by_path_value_and_rule(preset: Path, override: str, said: str) -> None:
    if not said:  # an empty mapping adds nothing to the base
        assert settings.load(preset, [override]).config == settings.load(preset).config
        return
    assert refusal(preset, override).startswith(said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimiser.critic.lr=1", "optimiser: unknown setting; did you mean 'optimizer'?"),
        ("optimizer.critic.rate=1", "optimizer.critic.rate: unknown setting; known here: lr"),
        ("optimizer.kritic.lr=1", "optimizer.kritic: unknown setting; did you mean 'critic'?"),
        ("codes.kind.std=fixed", "codes.kind.std: unknown setting; known here: ways, weight"),
        ("codes.c1.ways=3", "codes.c1.ways: unknown setting; known here: weight, std, sigma"),
        ("network.norms=none", "network.norms: unknown setting; did you mean 'norm'?"),
        ("ema.halflife_kimg=3", "ema.halflife_kimg: unknown setting; did you mean 'half_life_kimg'?"),
        ("xyz=1", "xyz: unknown setting; known here: network, codes, seed"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(preset: Path, override: str, said: str) -> None:
    assert refusal(preset, override).startswith(said)


@pytest.mark.parametrize("override", ["batch", "=3", "a..b=1", "batch.=3", "", "batch=[1", "codes.c1={a: b: c}"])
def test_a_malformed_override_is_named(preset: Path, override: str) -> None:
    assert refusal(preset, override).startswith(f"override {override!r}:")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("codes: [1, 2", "cannot be read as YAML"),
        ("- 1\n- 2\n", "must be a mapping of settings"),
        ("", "network: missing"),
        ("codes: {}\n", "network: missing"),
        ("codes: {}\nnetwork: {name: mnist}\nnoise: {size: 0}\n", "the generator would have no input"),
        ("codes: 5\nnetwork: {name: mnist}\n", "codes: 5: must be a mapping from names to settings"),
        ("network: mnist\ncodes: {}\n", "network: 'mnist': must be a mapping with a `name`"),
        ("network: {norm: none}\ncodes: {}\n", "must be a mapping with a `name`"),
        ("codes: {}\nnetwork: {name: mnist}\nseed: ${oc.env:HOME}\n", "seed: '${oc.env:HOME}': must be a whole number"),
        ("extends: [a, b]\n", "no such file and no such preset"),
    ],
)
def test_a_bad_preset_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert said in refusal(path)


def test_a_preset_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert f"config {path}: cannot be read" in refusal(path)


def test_an_unknown_preset_is_answered_with_every_name() -> None:
    said = refusal("paper/nmist")
    assert said.startswith("config 'paper/nmist': no such file and no such preset; presets: ")
    for path in settings.presets(settings.presets_folder()):
        assert str(path.relative_to(settings.presets_folder())).removesuffix(".yaml") in said


# ---- presets ------------------------------------------------------------------------------------------------------

PRESETS = settings.presets(settings.presets_folder())


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_loads_and_fits_its_network(path: Path) -> None:
    config = settings.load(path).config
    codes = config.latent_codes()
    generator, critic = config.network.generator(codes.input_width), config.network.critic(codes.q_width)
    assert sum(p.numel() for p in generator.parameters()) > 0
    assert sum(p.numel() for p in critic.parameters()) > 0
    assert config.data.digest == ""
    assert settings.from_plain(to_plain(config)) == config


def test_there_are_presets_for_the_paper_the_demo_and_ones_own() -> None:
    names = {str(path.relative_to(settings.presets_folder())) for path in PRESETS}
    assert names >= {"paper/mnist.yaml", "paper/fashion_mnist.yaml", "demo.yaml", "own.yaml"}


def test_the_mnist_preset_is_the_papers() -> None:
    config = settings.load("paper/mnist").config
    assert [type(code).__name__ for code in config.codes.values()] == [
        "CategoricalCode",
        "ContinuousCode",
        "ContinuousCode",
    ]
    assert (config.noise.size, config.noise.prior, config.latent_codes().input_width) == (62, "uniform", 74)
    assert (config.optimizer.critic.lr, config.optimizer.generator.lr) == (2e-4, 1e-3)
    assert config.optimizer.betas == (0.5, 0.999)
    assert (config.batch, str(config.stop)) == (128, "5000 updates")
    assert {code.weight for code in config.codes.values()} == {1.0}
    assert {code.std for code in config.codes.values() if isinstance(code, ContinuousCode)} == {"fixed"}


# ---- identity -----------------------------------------------------------------------------------------------------


def test_a_saved_config_is_read_back_as_it_was(preset: Path) -> None:
    config = settings.load(preset, ["stop=20 epochs", "threads=2", "eval.every_kimg=null"]).config
    assert settings.from_plain(to_plain(config)) == config
    assert settings.from_plain(yaml.safe_load(yaml.safe_dump(to_plain(config)))) == config


RUNTIME_CHANGES = [
    "data.path=elsewhere", "data.reader=indexed", "data.cache.path=elsewhere",
    "data.cache.limit_gb=9", "data.cache.offline=true", "stop=9 epochs", "device=cpu", "threads=3", "check_interval=7",
    "patience=60", "deepspeed=zero2",
    "log.every_kimg=1", "images.every_kimg=1", "checkpoint.every_kimg=1", "checkpoint.keep=9", "eval.every_kimg=null",
]  # fmt: skip
IDENTITY_CHANGES = [
    "seed=1", "batch=32", "accumulation=2", "data.digest=abc", "data.window=4", "noise.size=3", "noise.prior=normal",
    "network.norm=none", "sync_batchnorm=true",
    "network.name=fashion_mnist", "network.critic_slope=0.2", "objective={name: non_saturating, mi_gradient: head}",
    "objective={name: non_saturating, r1: 1}", "objective={name: non_saturating, ramp_kimg: 1}",
    "augment.mirror=true", "augment.diffaugment=[cutout]",
    "optimizer.critic.lr=1", "optimizer.generator.lr=1", "optimizer.betas=[0.1,0.2]", "ema.half_life_kimg=1",
    "ema.rampup=1", "precision=fp32", "codes.kind.ways=3", "codes.kind.weight=3", "codes.c1.std=learned",
    "codes.c1.sigma=3", "codes.c1=null", "codes.c9.kind=continuous",
]  # fmt: skip


@pytest.mark.parametrize("override", RUNTIME_CHANGES)
def test_what_may_change_is_not_in_the_digest(preset: Path, override: str) -> None:
    before, after = settings.load(preset).config, settings.load(preset, [override]).config
    assert before != after
    assert digest(before) == digest(after)


@pytest.mark.parametrize("override", IDENTITY_CHANGES)
def test_what_decides_what_is_learned_is_in_the_digest(preset: Path, override: str) -> None:
    assert digest(settings.load(preset).config) != digest(settings.load(preset, [override]).config)


def test_every_field_is_either_identity_or_runtime_and_tested_as_such(preset: Path) -> None:
    """A field that is added later must be put on one of the two lists above."""
    config = settings.load(preset).config
    fields = set(flatten(to_plain(config)))
    changed = {override.partition("=")[0] for override in RUNTIME_CHANGES + IDENTITY_CHANGES}
    named = {
        "network.name",
        "objective.name",
        "objective.mi_gradient",
        "objective.r1",
        "objective.ramp_kimg",
        "codes.kind.kind",
        "codes.c1.kind",
        "codes.c1.weight",
    }
    assert fields - changed - named == set()
    expected = {path for path in fields if not path.startswith(RUNTIME)} | {"codes"}
    assert set(identity(config)) == expected - NEUTRAL.keys()


def test_the_order_of_codes_is_part_of_the_identity(preset: Path) -> None:
    """It is the order in the generator's input and in Q's output."""
    plain = to_plain(settings.load(preset).config)
    turned = plain | {"codes": dict(reversed(plain["codes"].items()))}
    assert digest(settings.from_plain(turned)) != digest(settings.from_plain(plain))


@pytest.mark.parametrize("registry", [NETWORKS, OBJECTIVES], ids=lambda registry: registry.kind)
def test_every_registered_component_can_be_named_in_a_config(registry: object, preset: Path) -> None:
    for name in registry:  # type: ignore[attr-defined]
        kind = registry.kind  # type: ignore[attr-defined]
        config = settings.load(preset, [f"{kind}.name={name}"]).config
        assert getattr(config, kind).name == name


# ---- stop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("5 updates", 5 * 128), ("1 update", 128), ("0.5 updates", 128), ("2 epochs", 2048), ("1 epoch", 1024),
        ("1.01 epochs", 1024), ("1.03 epochs", 1152), ("2.56 kimg", 2560), ("2.5 kimg", 2560), ("1 kimg", 1024),
        ("0.001 kimg", 128),
        (" 3   updates ", 384), ("1e1 updates", 1280),
    ],
)  # fmt: skip
def test_a_stop_in_any_unit_is_a_whole_number_of_updates(text: str, images: int) -> None:
    """A set of 1,000 images, batches of 128: rounded up."""
    assert Stop.parse(text).images(batch=128, samples=1000) == images


def test_a_stop_is_written_as_it_is_read() -> None:
    for text in ("5000 updates", "20 epochs", "640 kimg", "2.5 kimg", "1234567 updates", "0.1 epochs"):
        assert str(Stop.parse(text)) == text
        assert Stop.parse(str(Stop.parse(text))) == Stop.parse(text)


def test_the_same_stop_in_three_units_is_the_same_moment() -> None:
    stops = [Stop.parse(text).images(100, 5000) for text in ("100 updates", "2 epochs", "10 kimg")]
    assert stops == [10_000] * 3


def test_a_dry_run_times_no_update_that_does_not_fit_and_refuses_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["threads=1", "device=cpu"]  # threads: those of the tests
    large = settings.load("paper/mnist", [*words, f"data.path={tmp_path / 'none'}", "batch=1000000", "stop=1 kimg"])
    *_, memory, update, stop = describe(large)
    assert memory.startswith("memory: about ")
    assert update.startswith("one update: not timed, it does not fit into the free memory of cpu: lower batch")
    assert stop == "stop 1 kimg = 1 updates = 1,000 kimg"
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="is no finished data set"):
            list(describe(settings.load("paper/mnist", [*words, f"data.path={path}"])))


def test_a_config_made_in_python_is_checked_too() -> None:
    with pytest.raises(ValueError, match="batch: 1: must be at least 2"):
        RunConfig(codes={"k": CategoricalCode()}, network=MNIST(), batch=1)


def test_the_window_belongs_to_the_run_and_the_cache_to_the_machine() -> None:
    plain = settings.load("paper/mnist").config
    moved = settings.load(
        "paper/mnist", ["data.path=s3://bucket/mnist", "data.reader=remote", "data.cache.path=/scratch"]
    ).config
    assert moved.data.cache.path == "/scratch"
    assert digest(moved) == digest(plain)
    assert digest(settings.load("paper/mnist", ["data.window=4"]).config) != digest(plain)
    assert "data.window" not in identity(plain)
    with pytest.raises(UserError, match=r"data\.window: 0: .*1"):
        settings.load("paper/mnist", ["data.window=0"])
    with pytest.raises(UserError, match=r"data\.cache\.limit_gb: -1"):
        settings.load("paper/mnist", ["data.cache.limit_gb=-1"])


def test_a_name_that_no_file_could_bear_and_a_path_that_no_system_takes_are_refused(preset: Path) -> None:
    long = "x" * 101
    assert "codes: xxxxxxxxxxxxxxxxxxxx...: 101 bytes" in refusal(preset, f"codes.{long}={{kind: continuous}}")
    assert "data.path: '\\x00x': must hold no null byte" in refusal(preset, 'data.path="\\0x"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file, and none of ours"),
        ('{"zero_opt', "cannot be read as JSON"),
        ("[1]", "has no section zero_optimization"),
        ('{"zero_optimization": {"stage": 2, "reduce_bucket_sze": 1}}', "did you mean 'reduce_bucket_size'?"),
        ('{"zero_optimization": {"stage": 2}, "qqq": 3}', "qqq: DeepSpeed has no such setting; leave it away"),
        ('{"zero_optimization": {"stage": 3}}', "stage is 3, and must be 1 or 2"),
        ('{"zero_optimization": {"stage": 2}, "train_batch_size": 7}', "train_batch_size is 7, the config makes it 64"),
    ],
)
def test_a_deepspeed_file_is_looked_at_with_the_config_but_not_with_that_of_a_run_which_is_over(
    preset: Path, tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    assert said in refusal(preset, f"deepspeed={file}")
    preset.write_text(f"{SMALL}deepspeed: {file}\n")
    assert settings.saved(preset).deepspeed == str(file)
