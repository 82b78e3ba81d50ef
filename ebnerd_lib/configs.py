"""The parameters of each notebook: one class a notebook, with the type and the legal values of each parameter.

A notebook's parameters cell gives the defaults, a parameter file what differs; ``ebnerd_lib.pipeline.params`` puts both
together and has the class check them. Types are strict: no number is read from text and no bool is an int, but an int
is taken for a float. Numbers are finite. Loads pydantic and the standard library only.
"""

from collections.abc import Hashable
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Item = TypeVar("Item", bound=Hashable)
ONLINE = "_online"
"""What the name of a model that is updated online ends in."""


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
Stage = Annotated[str, Field(pattern=r"^[0-9]{2}_[a-z0-9_]+$")]
Folder = Annotated[str, Field(pattern=r"^\w[\w .-]*(/\w[\w .-]*)*/?$")]
"""A folder below the project's: no ``..`` and no leading slash. What lies elsewhere can be linked there."""
Time = Annotated[str, Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?)?$")]
Tier = Literal["ids", "content", "exposure", "clicks"]
SplitName = Literal["official", "quantile"]
Loss = Literal["listwise", "bce"]
Context = Literal["none", "mean", "attention"]
Names = Annotated[list[Name], AfterValidator(_each_once)]
Id = Annotated[int, Field(ge=0, le=4_294_967_295)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class Parameters(BaseModel):
    """What all notebooks have."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    profile: str = Field(description="folder of params/ that is run, and of outputs/ that is written")


class SeededParameters(Parameters):
    """What all notebooks of this repository have."""

    seed: int = Field(ge=0, le=2**31 - 1, description="seed of all random numbers: weights, samples and the bootstrap")


class ReadingParameters(SeededParameters):
    """What all notebooks after the first have."""

    reads: Annotated[list[Stage], AfterValidator(_each_once)] = Field(
        min_length=1, max_length=20, description="stages whose artifacts are read"
    )


class TrainParameters(ReadingParameters):
    """What to train and how, for every training notebook."""

    module: Name = Field(description="module of ebnerd_lib/models that holds the models")
    models: Names = Field(min_length=1, max_length=20, description="names of models of the module")
    tiers: Annotated[list[Tier], AfterValidator(_each_once)] = Field(
        min_length=1, max_length=4, description="information tiers of models with features, the main one first"
    )
    loss: Loss = Field(description="of a click against its slate, or of each candidate alone")
    learning_rate: float = Field(gt=0, le=1, description="peak of the one-cycle schedule, or the constant rate")
    schedule: Literal["one_cycle", "constant"] = Field(description="of the learning rate")
    weight_decay: float = Field(ge=0, le=10, description="decoupled, on matrices only")
    id_dropout: float = Field(ge=0, le=1, description="share of ids that training replaces by the unknown id")
    epochs: int = Field(ge=1, le=1000, description="number of epochs at most")
    patience: int = Field(ge=0, le=1000, description="epochs without a better tuning AUC before training stops")
    batch_size: int = Field(ge=1, le=1_000_000, description="slates a batch, over all processes")
    negatives: int = Field(ge=0, le=1000, description="candidates sampled beside the clicks of a slate; 0 keeps all")
    warmup_hours: float = Field(ge=0, le=336, description="hours at the start of the train part that are left out")
    seeds: int = Field(ge=1, le=100, description="networks whose scores are averaged: seed and the numbers after it")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = Field(description="of Lightning's Trainer")
    devices: int = Field(ge=1, le=1024, description="of Lightning's Trainer, number of them")
    strategy: Literal["auto", "ddp", "ddp_notebook", "ddp_spawn", "fsdp", "deepspeed"] = Field(
        description="of Lightning's Trainer"
    )
    num_nodes: int = Field(ge=1, le=1024, description="of Lightning's Trainer, number of them")
    precision: Literal["16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true"] = Field(
        description="of Lightning's Trainer"
    )


class OnlineParameters(Parameters):
    """Online updates of trained models."""

    update_minutes: Annotated[Literal[0, 1, 15, 60, 1440], BeforeValidator(_whole_number)] = Field(
        description="minutes between online updates, which divide an hour or a day; 0 is off"
    )
    update_vector_rate: float = Field(ge=0, le=10, description="how far a slate moves the vectors of its ids")
    update_learning_rate: float = Field(ge=0, le=1, description="constant rate of all weights but those of ids")
    update_replay: float = Field(ge=0, le=1000, description="past slates that are replayed for each new one")
    update_replay_hours: float = Field(ge=0, le=10_000, description="how far back replayed slates lie")
    update_batch_size: int = Field(ge=1, le=1_000_000, description="slates a batch of new and replayed ones")


class ListParameters(ReadingParameters):
    """How lists of recommendations are made."""

    models: Names = Field(min_length=1, max_length=20, description="names of trained models")
    k: int = Field(ge=1, le=1000, description="articles a list")
    diversity: float = Field(ge=0, le=1, description="weight of diversity in maximal marginal relevance; 0 is by score")
    pool_hours: float = Field(gt=0, le=10_000, description="hours since an article's last impression or publication")
    slate_draws: int = Field(ge=1, le=100, description="sampled slates over which an article's score is averaged")


class Preprocess(SeededParameters):
    """Parameters of ``01_preprocess``."""

    bundle: Folder = Field(description="folder of the bundle, relative to the project")
    split: SplitName = Field(description="parts by weeks, or cut at the 0.9 quantile of time")
    stored_as: Literal["float32", "float16"] = Field(description="type of stored features")
    leave_out: Names = Field(max_length=200, description="columns, and groups of them, that are not stored")


class TrainMF(TrainParameters, OnlineParameters):
    """Parameters of ``02_train_mf``."""

    embedding_size: int = Field(ge=1, le=4096, description="length of the vectors of users, articles and features")
    history_length: int = Field(ge=1, le=10_000, description="latest clicks of the history that mf_features looks at")
    update_bias_rate: float = Field(ge=0, le=10, description="how far a slate moves the biases of its articles")
    update_half_life_hours: float = Field(
        ge=0, le=10_000, description="hours after which half of what an id has learned is forgotten; 0 is never"
    )


class TrainMLP(TrainParameters, OnlineParameters):
    """Parameters of ``03_train_mlp``."""

    embedding_size: int = Field(ge=0, le=4096, description="length of the vectors of users and articles; 0 has none")
    hidden: list[Width] = Field(max_length=10, description="widths of the hidden layers")
    dropout: float = Field(ge=0, lt=1, description="share of hidden units that training drops")
    context: Context = Field(description="what a candidate knows of its slate")
    heads: int = Field(ge=1, le=64, description="of the attention of nrms")
    history_length: int = Field(ge=1, le=10_000, description="latest clicks of the history that nrms looks at")
    query_size: int = Field(ge=1, le=4096, description="width of the additive attention of nrms")


class Recommend(ListParameters):
    """Parameters of ``04_recommend``."""

    user_ids: list[Id] = Field(max_length=10_000, description="users to serve; none samples as many as `users` says")
    users: int = Field(ge=1, le=100_000, description="users sampled from validation")
    time: Time = Field(description="moment of the request, as 2023-05-30T12:00:00; none is the end of validation")
    reference_users: int = Field(ge=2, le=1_000_000, description="users sampled for metrics over users")
    tradeoff_impressions: int = Field(ge=1, le=10_000_000, description="impressions sampled for the cost of diversity")


class Compare(ReadingParameters):
    """Parameters of ``05_compare``."""

    reference: Name = Field(description="the scorer that all others are compared with")
    importance: Names = Field(max_length=20, description="models whose features are permuted; none that is online")
    importance_impressions: int = Field(ge=1, le=10_000_000, description="impressions scored with permuted features")


class Explore(ListParameters):
    """Parameters of ``06_explore``."""

    bundle: Folder = Field(description="folder of the bundle that 01 read")
    user_ids: list[Id] = Field(max_length=1, description="the user of the example; none samples one")
    history_rows: int = Field(ge=1, le=1000, description="latest clicks of the history that are shown")


CONFIGS: dict[str, type[Parameters]] = {
    "01_preprocess": Preprocess,
    "02_train_mf": TrainMF,
    "03_train_mlp": TrainMLP,
    "04_recommend": Recommend,
    "05_compare": Compare,
    "06_explore": Explore,
}
"""The class of each notebook, by its name."""
