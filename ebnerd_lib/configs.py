"""The parameters of each notebook: one class a notebook, with the type and the legal values of each parameter.

A notebook's parameters cell gives the defaults, a parameter file what differs; ``ebnerd_lib.pipeline.params`` puts both
together and has the class check them. Types are strict: no number is read from text and no bool is an int, but an int
is taken for a float. Numbers are finite. Loads pydantic and the standard library only.
"""

from collections.abc import Hashable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Item = TypeVar("Item", bound=Hashable)
ONLINE = "_online"
"""What the name of a model that is updated online ends in."""
WITHOUT_EFFECT = frozenset({"mlflow"})
"""Parameters that no result depends on, so that they make nothing stale."""


def _each_once(items: list[Item]) -> list[Item]:
    """Refuse a list that names something twice."""
    if len(set(items)) < len(items):
        raise ValueError("each item may stand there once")
    return items


def _whole_number(value: object) -> object:
    """Refuse ``True`` and ``1.0``, which a ``Literal`` takes for 1."""
    if type(value) is not int:
        raise ValueError("input should be a valid integer")
    return value


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Stage = Annotated[str, Field(pattern=r"^[0-9]{2}_[a-z0-9_]+(\.[a-z][a-z0-9_]*)?$")]
Folder = Annotated[str, Field(pattern=r"^\w[\w .-]*(/\w[\w .-]*)*/?$")]
"""A folder below the project's: no ``..`` and no leading slash. What lies elsewhere can be linked there."""
Time = Annotated[str, Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?)?$")]
TrackingUri = Annotated[
    str,
    Field(
        pattern=r"^([a-z][a-z0-9+.-]*:\S+)?$",
        max_length=2000,
        description="tracking URI of an MLflow server that finished runs are sent to; none is off",
    ),
]
Warmup = Annotated[float, Field(ge=0, le=336, description="hours at the start that are left out of training")]
Tier = Literal["ids", "content", "exposure", "clicks"]
SplitName = Literal["official", "quantile"]
Loss = Literal["listwise", "bce"]
Context = Literal["none", "mean", "attention"]
Factorisation = Literal["mf_ids", "mf_features"]
Names = Annotated[list[Name], AfterValidator(_each_once)]
Id = Annotated[int, Field(ge=0, le=4_294_967_295)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class Group(BaseModel):
    """Settings that stand together under one key; what a file does not give has the default that stands here."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Parameters(Group):
    """What all notebooks have."""

    profile: str = Field(description="folder of params/ that is run, and of outputs/ that is written")
    seed: int = Field(ge=0, le=2**31 - 1, description="seed of all random numbers: weights, samples and the bootstrap")


class ReadingParameters(Parameters):
    """What all notebooks after the first have."""

    reads: Annotated[list[Stage], AfterValidator(_each_once)] = Field(
        min_length=1, max_length=20, description="stages whose artifacts are read"
    )


class Training(Group):
    """How to train, beside what the parameters cells show."""

    loss: Loss = Field("listwise", description="of a click against its slate, or of each candidate alone")
    schedule: Literal["one_cycle", "constant"] = Field("one_cycle", description="of the learning rate")
    weight_decay: float = Field(1e-2, ge=0, le=10, description="decoupled, on matrices only")
    id_dropout: float = Field(0.9, ge=0, le=1, description="share of ids that training replaces by the unknown id")
    patience: int = Field(4, ge=0, le=1000, description="epochs without a better tuning AUC before training stops")
    negatives: int = Field(0, ge=0, le=1000, description="candidates sampled beside a slate's clicks; 0 keeps all")
    warmup_hours: Warmup = 48.0
    seeds: int = Field(1, ge=1, le=100, description="networks whose scores are averaged: seed and the numbers after it")


class Pools(Group):
    """What ``slates: live`` trains on: of the articles live at an impression, those clicked and a sample of others."""

    impressions: int = Field(9_000, ge=1, le=100_000_000, description="sampled of the train part, with a click")
    evenly: int = Field(60, ge=0, le=10_000, description="live articles of each that have the same chance")
    by_views: int = Field(60, ge=0, le=10_000, description="live articles sampled by their recent times in view")
    tuning_impressions: int = Field(1_000, ge=1, le=10_000_000, description="of the tuning day, over all that is live")
    hours: float = Field(24.0, gt=0, le=10_000, description="hours that an article is live after it was in view")


class Online(Group):
    """Online updates, beside ``update_minutes``."""

    learning_rate: float = Field(1e-4, ge=0, le=1, description="constant rate of all weights but those of ids")
    vector_rate: float = Field(3e-3, ge=0, le=10, description="how far a slate moves the vectors of its ids")
    bias_rate: float = Field(0.5, ge=0, le=10, description="how far a slate moves the biases of its articles")
    half_life_hours: float = Field(
        24.0, ge=0, le=10_000, description="hours after which half of what an article's id has learned is forgotten"
    )
    replay: float = Field(3.0, ge=0, le=1000, description="past slates that are replayed for each new one")
    replay_hours: float = Field(96.0, ge=0, le=10_000, description="how far back replayed slates lie")
    batch_size: int = Field(64, ge=1, le=1_000_000, description="slates a batch of new and replayed ones")


class Boosting(Group):
    """How trees are trained, beside what the parameters cell shows."""

    warmup_hours: Warmup = 48.0
    patience: int = Field(50, ge=1, le=10_000, description="trees without a better tuning AUC before training stops")
    min_data_in_leaf: int = Field(100, ge=1, le=1_000_000, description="candidates a leaf, at the least")
    feature_fraction: float = Field(0.5, gt=0, le=1, description="share of the columns that a tree sees")
    num_threads: int = Field(0, ge=0, le=1024, description="cores that trees are trained on; 0 is all of the machine")
    bagging_fraction: float = Field(0.8, gt=0, le=1, description="share of the candidates that a tree sees")


class Trainer(Group):
    """Arguments of Lightning's ``Trainer``."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = Field("auto", description="auto takes a GPU")
    devices: int = Field(1, ge=1, le=1024, description="number of them; in a notebook more need ddp_notebook")
    strategy: Literal["auto", "ddp", "ddp_notebook", "ddp_spawn", "fsdp", "deepspeed"] = Field(
        "auto", description="how devices train together"
    )
    num_nodes: int = Field(1, ge=1, le=1024, description="number of machines")
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field("32-true", description="of the computation")


class TrainParameters(ReadingParameters):
    """What every training notebook has."""

    tier: Tier = Field(description="information tier: which features the model may see")
    embedding_size: int = Field(ge=0, le=4096, description="length of the vectors of users and articles")
    learning_rate: float = Field(gt=0, le=1, description="peak of the one-cycle schedule, or the constant rate")
    batch_size: int = Field(ge=1, le=1_000_000, description="slates a batch, over all processes")
    epochs: int = Field(ge=1, le=1000, description="number of epochs at most")
    update_minutes: Annotated[Literal[0, 1, 15, 60, 1440], BeforeValidator(_whole_number)] = Field(
        description="minutes between online updates, which divide an hour or a day; 0 is off"
    )
    mlflow: TrackingUri
    training: Training = Field(description="further settings of training")
    online: Online = Field(description="further settings of online updates")
    trainer: Trainer = Field(description="arguments of Lightning's Trainer")


class ListParameters(ReadingParameters):
    """How lists of recommendations are made."""

    models: Names = Field(min_length=1, max_length=20, description="names of trained models")
    k: int = Field(ge=1, le=1000, description="articles a list")
    diversity: float = Field(ge=0, le=1, description="weight of diversity in maximal marginal relevance; 0 is by score")
    pool_hours: float = Field(gt=0, le=10_000, description="hours that an article is live after it was in view")


class Preprocess(Parameters):
    """Parameters of ``01_preprocess``."""

    bundle: Folder = Field(description="folder of the bundle, relative to the project")
    split: SplitName = Field(description="parts by weeks, or cut at the 0.9 quantile of time")
    stored_as: Literal["float32", "float16"] = Field(description="type of stored features")
    leave_out: Names = Field(max_length=200, description="columns, and groups of them, that are not stored")


class TrainMF(TrainParameters):
    """Parameters of ``02_train_mf``."""

    model: Factorisation = Field(description="whether articles are known by ids or by features")
    embedding_size: int = Field(ge=1, le=4096, description="length of the vectors of users, articles and features")
    history_length: int = Field(ge=1, le=10_000, description="latest clicks of the history that mf_features looks at")


class TrainMLP(TrainParameters):
    """Parameters of ``03_train_mlp``."""

    hidden: list[Width] = Field(max_length=10, description="widths of the hidden layers")
    dropout: float = Field(ge=0, lt=1, description="share of hidden units that training drops")
    context: Context = Field(description="what a candidate knows of its slate")
    slates: Literal["logged", "live"] = Field(description="what it learns from: pages of the log, or all that was live")
    pools: Pools = Field(description="further settings of slates: live")

    @field_validator("slates")
    @classmethod
    def _for_live(cls, slates: str, info: ValidationInfo) -> str:
        """Refuse what is not made for pools."""
        if slates == "live" and (info.data.get("context") != "none" or info.data.get("update_minutes")):
            raise ValueError("live needs context: none and update_minutes: 0")
        return slates


class TrainNews(TrainParameters):
    """Parameters of ``03_train_news``."""

    model: Name = Field(description="module of ebnerd_lib/models, and the name of the model in it")
    heads: int = Field(ge=1, le=64, description="of the attention")
    history_length: int = Field(ge=1, le=10_000, description="latest clicks of the history that the model looks at")
    query_size: int = Field(ge=1, le=4096, description="width of the additive attention")
    dropout: float = Field(ge=0, lt=1, description="share of units of the vectors that training drops")


class TrainTrees(ReadingParameters):
    """Parameters of ``03_train_trees``."""

    tier: Tier = Field(description="information tier: which features the model may see")
    objective: Literal["lambdarank", "binary"] = Field(description="by pairs of a slate, or of each candidate alone")
    trees: int = Field(ge=1, le=100_000, description="number of trees at most")
    leaves: int = Field(ge=2, le=10_000, description="leaves a tree, at the most")
    learning_rate: float = Field(gt=0, le=1, description="share of each tree that counts")
    boosting: Boosting = Field(description="further settings of LightGBM")
    mlflow: TrackingUri


class Recommend(ListParameters):
    """Parameters of ``04_recommend``."""

    user_ids: list[Id] = Field(max_length=10_000, description="users to serve; none samples as many as `users` says")
    users: int = Field(ge=1, le=100_000, description="users sampled from validation")
    time: Time = Field(description="moment of the request, as 2023-05-30T12:00:00; none is the end of validation")
    reference_users: int = Field(ge=2, le=1_000_000, description="users sampled for metrics over users")
    impressions: int = Field(ge=1, le=10_000_000, description="of validation, whose next clicks are ranked")


class Compare(ReadingParameters):
    """Parameters of ``05_compare``."""

    models: Names = Field(max_length=100, description="models to compare; none is all that read the same 01")
    reference: Name = Field(description="the scorer that all others are compared with")
    importance: Names = Field(max_length=20, description="models whose features are permuted; none that is online")
    importance_impressions: int = Field(ge=1, le=10_000_000, description="impressions scored with permuted features")


class Range(Group):
    """The ends of a range that is searched."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        """Refuse ends that are not in order, and a range by orders of magnitude that holds 0."""
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 for log: true")
        return self


Space = dict[str, Range | list[Any]]
"""What is searched, by parameter: a range, or a list of choices; a parameter of a group as in ``training.loss``."""


class Tune(ReadingParameters):
    """Parameters of ``07_tune``."""

    training_stage: Stage = Field(description="stage of the profile whose parameters are searched")
    trials: int = Field(ge=1, le=100_000, description="finished ones, over all processes")
    space: Space = Field(description="what is searched; none takes the notebook's entry in params/tune.yaml")


class Explore(ListParameters):
    """Parameters of ``06_explore``."""

    models: Names = Field(max_length=100, description="models on offer; none is all that read the same 01")
    bundle: Folder = Field(description="folder of the bundle that 01 read")
    user_ids: list[Id] = Field(max_length=1, description="the user of the example; none samples one")
    history_rows: int = Field(ge=1, le=1000, description="latest clicks of the history that are shown")


CONFIGS: dict[str, type[Parameters]] = {
    "01_preprocess": Preprocess,
    "02_train_mf": TrainMF,
    "03_train_mlp": TrainMLP,
    "03_train_news": TrainNews,
    "03_train_trees": TrainTrees,
    "04_recommend": Recommend,
    "05_compare": Compare,
    "06_explore": Explore,
    "07_tune": Tune,
}
"""The class of each notebook, by its name."""


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without groups: each value of a group is named as in ``trainer.devices``."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        found |= {f"{name}.{key}": own for key, own in value.items()} if isinstance(value, dict) else {name: value}
    return found


def nested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with groups, of those that ``flat`` gives; of two for one key the last one counts."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        group, dot, key = name.partition(".")
        own = found.get(group)
        found[group] = {**(own if isinstance(own, dict) else {}), key: value} if dot else value
    return found
