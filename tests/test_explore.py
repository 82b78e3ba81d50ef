"""The explorer: what a user had read, the slate that was shown, one user's list, and the life of an article."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from bs4 import BeautifulSoup
from conftest import FAR_USER
from conftest import micros as at
from fits import make_model, recommend

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import BundleError, ConfigError, StageError
from ebnerd_lib.evaluation.evaluate import SCORED, save_scores
from ebnerd_lib.explore.app import LiveView
from ebnerd_lib.explore.explorer import (
    CLICKED,
    ONLY,
    SHOWN,
    Answer,
    Explorer,
    Moment,
    Settings,
    compared,
    find_articles,
    moment_of,
    moments,
    read_times,
    sample_moment,
    users,
)
from ebnerd_lib.features.build import Checkpoints, build
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.live import read_before
from ebnerd_lib.recommend import lists
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.training.model_file import TrainedModel, save_model

HOSTILE = '<script>alert(1)</script> & "so on" $x$'


def keep_model(model: TrainedModel, data, folder) -> None:
    """Save a model as its stage does, with scores if it was trained on logged slates."""
    save_model(model, folder)
    if model.trained_on == "live":
        return
    rng = np.random.default_rng(0)
    for part, kind in (("tuning", "tuning"), ("validation", "scores")):
        slates = data.parts[part]
        save_scores(folder / f"{kind}_{model.name}.parquet", slates, rng.normal(size=slates.candidates))


@pytest.fixture(scope="module")
def small(smoke) -> list[TrainedModel]:
    layers = {"hidden": (8,), "embedding_size": 4}
    return [
        make_model(smoke, **layers),
        replace(make_model(smoke, tier="content", **layers), name="mlp_content"),
    ]


@pytest.fixture(scope="module")
def explorer(smoke, smoke_bundle, small, tmp_path_factory) -> Explorer:
    """An explorer of three models, two trained on what is live."""
    folder = tmp_path_factory.mktemp("models")
    for model in (*small, replace(small[0], name="mlp_logged", trained_on="logged")):
        keep_model(model, smoke, folder)
    return Explorer(smoke, smoke_bundle, ["mlp", "mlp_content", "mlp_logged"], [folder], Settings(k=5))


@pytest.fixture(scope="module")
def sampled(smoke) -> list[Moment]:
    rng = np.random.default_rng(3)
    return [sample_moment(smoke, rng) for _ in range(4)]


def on_offer(data, impression_id: int) -> Moment:
    every = (moment_of(data, part, row) for part in SCORED for row in range(len(data.parts[part])))
    return next(moment for moment in every if moment.impression_id == impression_id)


# A user and the moments of one.


def test_a_user_has_moments_in_tuning_and_validation(tiny):
    first, second = moments(tiny, 7)
    assert moments(tiny, " 7 ") == [first, second] and (first.impression_id, second.impression_id) == (106, 201)
    assert (first.part, second.part) == ("tuning", "validation") and second.time == at("25T07:00")
    assert str(second) == "2023-05-25 07:00:00, 2 candidates, validation"


# Search.


def test_moments_are_found_by_what_was_clicked_and_users_are_named_where_there_are_none(tiny):
    titled = replace(tiny, articles=tiny.articles.assign(title=None))
    titled.articles.loc[titled.articles["article_id"] == 1009, "title"] = "Vinterens første Sne"
    found = [moment.slate(tiny) for moment in moments(titled, "sne VINTER")]
    assert found and all(1009 in slate.article_id[slate.clicked] for slate in found)
    for nobody in ("sommer", " ", "10", "9" * 11):
        with pytest.raises(ConfigError, match=r" 4 .* 7, 8, 9"):
            moments(titled, nobody)


def test_articles_found_by_title_have_all_the_words_and_the_most_seen_comes_first(smoke):
    word = smoke.articles["title"].dropna().iloc[0].split()[-1]
    found = find_articles(smoke, word.upper())
    assert find_articles(smoke, str(found["article_id"].iloc[-1])).equals(found.tail(1))
    assert found["title"].str.casefold().str.contains(word.casefold(), regex=False).all() and len(found) > 1
    seen = pd.Series(smoke.log.article_id).value_counts().reindex(found["article_id"], fill_value=0)
    assert seen.is_monotonic_decreasing
    for none in ("no such words", "", "999999999"):
        with pytest.raises(ConfigError):
            find_articles(smoke, none)


# What was read before.


@pytest.mark.parametrize(
    ("impression", "rows"),
    [
        # The history of the week holds what the log of the week before does; 1099 is in no table.
        (201, [(1099, np.nan, 2.0, "history"), (1003, 0.5, 2.0, "history"), (1002, 2.0, 2.0, "history")]),
        # In its own week each click counts, whether the history has its article or not.
        (
            106,
            [
                (1003, 0.5, np.nan, "log"), (1002, 2.0, np.nan, "log"), (1002, 0.0, 2.0, "history"),
                (1001, 0.0, 2.0, "history"), (1001, 0.0, 2.0, "history"),
            ],
        ),
        # Without a history, the log of the week before tells; the click of the impression itself does not.
        (204, [(1006, 2.0, np.nan, "log"), (1004, 0.5, np.nan, "log"), (1001, 53.0, np.nan, "log")]),
    ],
)  # fmt: skip
def test_what_a_user_had_read(tiny, tiny_path, impression, rows):
    found = Explorer(tiny, tiny_path, [], [], Settings()).history(on_offer(tiny, impression), 99).table
    columns = ["article_id", "age_hours", "read_time", "source"]
    expected = pd.DataFrame(rows, columns=columns).astype({"article_id": np.int32, "read_time": np.float32})
    pd.testing.assert_frame_equal(found[columns], expected, check_dtype=False)
    assert found["time"].is_monotonic_decreasing


def test_clicks_without_times_are_listed_after_the_others_the_last_one_first(tiny_bundle):
    """As in a data set whose histories have no times."""

    def without_times(table):
        for name in ("impression_time_fixed", "read_time_fixed"):
            column = pa.nulls(table.num_rows, table.schema.field(name).type)
            table = table.set_column(table.column_names.index(name), name, column)
        return table

    path = tiny_bundle(validation_history=without_times)
    dataset = datasets.prepare(open_bundle(path), "official")[0]
    found = Explorer(dataset, path, [], [], Settings()).history(on_offer(dataset, 201), 99).table
    assert found["article_id"].tolist() == [1099, 1003, 1002] and found["read_time"].isna().all()
    assert found["age_hours"].isna().all() and found["source"].tolist() == ["history"] * 3


def test_what_was_read_is_what_is_not_recommended(smoke, smoke_bundle, sampled):
    explorer = Explorer(smoke, smoke_bundle, [], [], Settings())
    for moment in sampled:
        requests = rec.make_requests(smoke, np.array([moment.user_id], np.uint32), moment.time)
        _, read = read_before(feature_context(smoke), requests.slates)
        ids = smoke.articles["article_id"].to_numpy()[read]
        assert set(explorer.history(moment, 10_000).table["article_id"]) == set(ids.tolist())


def test_read_times_stand_beside_their_clicks_whatever_the_order_of_the_file(tiny_bundle):
    def shuffled(table):
        seconds = pa.array([[1.0], [2.0, None], [3.0, 4.0, 5.0]], pa.large_list(pa.float32()))
        table = table.set_column(table.column_names.index("read_time_fixed"), "read_time_fixed", seconds)
        return table.take([2, 0, 1])

    path = tiny_bundle(validation_history=shuffled, row_group_size=1)
    assert read_times(path, 7, 1, 3).tolist() == [3.0, 4.0, 5.0]
    np.testing.assert_array_equal(read_times(path, 9, 1, 2), np.float32([np.nan, 2.0]))  # in order of time
    assert read_times(path, FAR_USER, 1, 1).tolist() == [1.0] and read_times(path, 8, 1, 0).tolist() == []
    with pytest.raises(BundleError, match="user 7 has 3 clicks, and 4 in the dataset"):
        read_times(path, 7, 1, 4)
    with pytest.raises(BundleError, match="none"):
        read_times(path / "none", 7, 1, 3)


# The slate that was shown.


def test_the_slate_is_ranked_by_score_and_tells_what_was_clicked(tiny, tiny_path, tmp_path):
    moment = on_offer(tiny, 203)  # [1002, 1008, 1009, 1010], 1009 clicked
    part = tiny.parts["validation"]
    scores = np.zeros(part.candidates)
    scores[part.offsets[moment.row] : part.offsets[moment.row + 1]] = 0.5, 0.9, 0.5, 0.1
    keep_model(make_model(tiny, trained_on="logged", hidden=(8,), embedding_size=4), tiny, tmp_path)
    save_scores(tmp_path / "scores_mlp.parquet", part, scores)
    table = Explorer(tiny, tiny_path, ["mlp"], [tmp_path], Settings()).slate(moment, "mlp").table
    assert table["article_id"].tolist() == [1008, 1002, 1009, 1010]
    assert table["rank"].tolist() == [1.0, 2.5, 2.5, 4.0]
    assert table["clicked"].tolist() == ["", "", CLICKED, ""]
    np.testing.assert_allclose(table["age_hours"], [np.nan, 257.25, 0.25, 0.0])  # 1010 comes out a quarter later


def test_answers_name_the_tier_and_mark_what_was_clicked_and_is_best(explorer, sampled):
    slate, list_ = explorer.slate(sampled[0], "mlp_logged"), explorer.recommended(sampled[0], "mlp_content")
    assert "(tier clicks)" in slate.caption and "(tier content)" in list_.caption and 0 <= slate.values["auc"] <= 1
    page = BeautifulSoup(slate.styled().to_html(), "html.parser")
    clicks = int((slate.table["clicked"] == CLICKED).sum())
    assert clicks == slate.values["clicks"] and len(page.select("td.clicked")) == clicks * slate.table.shape[1]
    assert len(page.select("td.best")) == 2, "rank and title"


def test_scores_of_a_live_trained_model_are_those_of_the_pool(explorer, smoke, sampled):
    model, without = make_model(smoke, hidden=(8,), embedding_size=4), 0
    for moment in sampled:
        requests = rec.make_requests(smoke, np.array([moment.user_id], np.uint32), moment.time)
        pool = dict(zip(requests.slates.article_id, lists.score(model, smoke, requests), strict=True))
        table = explorer.slate(moment, "mlp").table
        expected = [pool.get(article, np.nan) for article in table["article_id"].tolist()]
        np.testing.assert_allclose(table["score"], expected, rtol=1e-5)
        without += table["score"].isna().sum()
        clicked = table.loc[table["clicked"] == CLICKED, "score"].dropna().tolist()
        ranks = [1 + sum(other > own for other in pool.values()) for own in clicked]
        assert explorer.recommended(moment, "mlp").values["clicked_ranks"] == ranks
    assert without > 0, "the test would say nothing if all that is shown had been in view before"


def test_models_that_make_no_lists_say_so_and_those_that_know_the_future_or_lack_scores_are_refused(
    explorer, sampled, smoke, small, smoke_bundle, tmp_path
):
    answer = explorer.recommended(sampled[0], "mlp_logged")
    assert not len(answer.table) and "mlp_logged" in answer.caption and answer.values["clicked_ranks"] == []
    assert list(explorer.models)[-1] == "mlp_logged", "those that make lists come first"
    save_model(replace(small[0], trained_on="logged"), tmp_path)
    with pytest.raises(StageError, match=r"_mlp\.parquet"):
        Explorer(smoke, smoke_bundle, ["mlp"], [tmp_path], Settings()).slate(sampled[0], "mlp")
    keep_model(replace(small[0], name="mlp_online"), smoke, tmp_path)
    with pytest.raises(ConfigError, match="mlp_online"):
        Explorer(smoke, smoke_bundle, ["mlp_online"], [tmp_path], Settings())


# Two models side by side.


def test_ranks_of_two_lists_are_compared():
    own, other = (
        Answer(pd.DataFrame({"rank": ranks, "article_id": ids, "title": "a"}), "", {})
        for ids, ranks in (([11, 12, 13, 14], [1, 2, 3.5, np.nan]), ([12, 11, 15, 13, 14], [1, 2, 3, 3.5, 5]))
    )
    assert compared(own, other, "b").table["vs. b"].tolist() == ["▲ 1", "▼ 1", "=", "–"]
    back = compared(other, own, "a")
    assert back.table["vs. a"].tolist() == ["▲ 1", "▼ 1", ONLY, "=", "–"]
    assert len(BeautifulSoup(back.styled().to_html(), "html.parser").select("td.only")) == 2  # title and mark
    empty = replace(own, table=own.table[:0])
    assert list(compared(own, empty, "b").table) == ["rank", "title"] and not len(compared(empty, own, "b").table)


# One user's list.


@pytest.mark.parametrize("settings", [Settings(k=1000), Settings(4, 0.4, 12.0)], ids=["plain", "diverse"])
def test_one_users_list_is_that_of_stage_04_and_tells_what_was_made_of_its_articles(
    smoke, small, sampled, explorer, settings, monkeypatch
):
    monkeypatch.setattr(explorer, "settings", settings)
    users = np.unique([moment.user_id for moment in sampled]).astype(np.uint32)
    for moment in sampled[:3]:
        slate, list_ = explorer.slate(moment, "mlp").table, explorer.recommended(moment, "mlp").table
        was = dict(zip(slate["article_id"], np.where(slate["clicked"] == CLICKED, CLICKED, SHOWN), strict=True))
        assert list_["shown"].tolist() == [was.get(each, "") for each in list_["article_id"]]
        assert settings.k < 1000 or set(list_["shown"]) == {"", SHOWN, CLICKED}
        for model in small:
            requests = rec.make_requests(smoke, users, moment.time, settings.pool_hours)
            every = recommend(model, smoke, requests, settings.k, settings.diversity)
            own = every[every["user_id"] == moment.user_id].reset_index(drop=True)
            expected = own.drop(columns=["user_id", "model", "tier"])
            pd.testing.assert_frame_equal(
                explorer.recommended(moment, model.name).table.drop(columns="shown"), expected, rtol=1e-5, atol=1e-5
            )


def test_checkpoints_change_no_bit(smoke):
    context = feature_context(smoke)
    since = int(smoke.parts["tuning"].time[0])
    kept = Checkpoints(context, since, most=7)
    assert 1 < len(kept._times) <= 8
    validation = smoke.parts["validation"]
    some = [validation.take(np.array([row])) for row in (0, len(validation) // 2, len(validation) - 1)]
    times = [since - HOUR, since, kept._times[2], kept._times[2] - 1, int(validation.time[-1]) + HOUR]
    some += [replace(some[0], time=np.array([time])) for time in times]
    for query in some:
        np.testing.assert_array_equal(build(query, context, kept), build(query, context))


# The life of an article.


@pytest.mark.parametrize(
    ("article", "rows"),
    [
        (1003, [("18T08:00", 1, 0), ("18T09:00", 1, 1), ("20T12:00", 1, 0)]),
        (1006, [("24T07:00", 1, 1), ("25T06:00", 1, 0), ("25T07:00", 1, 0)]),
        (1099, [("26T10:00", 1, 1)]),
        (1012, []),  # in a history alone
    ],
)
def test_the_life_of_an_article_by_hour(tiny, tiny_path, article, rows):
    found = Explorer(tiny, tiny_path, [], [], Settings()).life(article).table
    assert found["hour"].tolist() == [at(hour) for hour, _, _ in rows]
    assert found["inviews"].tolist() == [inviews for _, inviews, _ in rows]
    assert found["clicks"].tolist() == [clicks for _, _, clicks in rows]
    assert found["rate"].tolist() == [clicks / inviews for _, inviews, clicks in rows]
    assert ((found["low"] <= found["rate"]) & (found["rate"] <= found["high"])).all()


def test_articles_without_a_title_are_told_from_unknown_ones(tiny, tiny_path):
    nameless = Explorer(replace(tiny, articles=tiny.articles.assign(title=None)), tiny_path, [], [], Settings())
    captions = [nameless.life(article).caption for article in (1003, 1099)]
    assert ["not in the articles table" in caption for caption in captions] == [False, True]
    for article in (0, 999, 1050, 5000):
        with pytest.raises(ConfigError, match=rf"article: {article} is in no table"):
            nameless.life(article)


# The answers, and the live view.


def values(view: LiveView) -> dict[str, str]:
    """What the panels and the notes say, without the names that tables are given anew."""
    said = {name: panel.value for name, panel in (view.panels | view.notes).items() if name != "time"}
    return {name: re.sub(r"T_[0-9a-f]+", "", value) for name, value in said.items()} | {"figure": view.figure.outputs}


@pytest.fixture
def view(explorer, sampled) -> LiveView:
    explorer.settings = Settings(k=5)
    return LiveView(explorer, sampled[0])


def changed(view: LiveView, **choices) -> set[str]:
    before = values(view)
    for name, value in choices.items():
        getattr(view, name).value = value
    return {name for name, value in values(view).items() if value != before[name]}


def test_each_choice_changes_what_follows_from_it(view, smoke):
    before = values(view)
    view.sample.click()
    assert all(values(view)[name] != before[name] for name in ("history", "slate", "recommended", "figure"))
    other = next(user for user in users(smoke).tolist() if len(moments(smoke, user)) > 1)
    assert changed(view, user=str(other)) >= {"history", "slate", "recommended"}
    assert len(view.moment.options) > 1 and view.moment.value == len(view.moment.options) - 1
    assert changed(view, moment=0) >= {"slate"}
    assert changed(view, k=3) == {"recommended"} == changed(view, diversity=0.9) and changed(view, hours=1.0)
    assert len(BeautifulSoup(view.panels["recommended"].value, "html.parser").select("tbody tr")) == 3
    last = view.article.options[-1][1]
    assert changed(view, article=last) == {"life", "figure"} and str(last) in view.panels["life"].value
    (output,) = view.figure.outputs
    inviews = output["data"]["application/vnd.plotly.v1+json"]["data"][0]
    assert inviews["name"] == "in view" and sum(inviews["y"]) == view._explorer.life(last).values["inviews"]


def test_a_second_model_stands_beside_the_first(view):
    assert changed(view, model="mlp_content", other="mlp_logged") >= {"slate", "recommended"}
    first, second = BeautifulSoup(view.panels["slate"].value, "html.parser").select("table")
    assert "vs. mlp_logged" in first.get_text() and "vs. mlp_content" in second.get_text()
    first, second = BeautifulSoup(view.panels["recommended"].value, "html.parser").select("table")
    assert first.select("tbody tr") and not second.select("tbody tr") and "mlp_logged" in second.caption.get_text()
    changed(view, other="mlp_content")
    assert len(BeautifulSoup(view.panels["recommended"].value, "html.parser").select("table")) == 1


def test_what_a_search_finds_is_offered_and_shown(view, smoke):
    far = smoke.articles["article_id"].iloc[-1]
    assert changed(view, search=str(far)) == {"search", "life", "figure"} and view.article.value == far
    changed(view, k=4)
    assert view.article.value == far, "it stays when other things are chosen"
    word = smoke.articles["title"].dropna().iloc[0].split()[-1]
    changed(view, user=word)
    assert len({moment.user_id for moment in view._moments}) > 1 and "found" in view.notes["user"].value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "123456"), ("user", "<b>x</b>"), ("user", ""), ("user", "9" * 10), ("user", "9" * 5000),
        ("search", "-1"), ("search", "9" * 10), ("search", "<i> no such words"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_field_and_what_was_shown_stays(view, field, value):
    assert changed(view, **{field: value}) == {field}
    note = BeautifulSoup(view.notes[field].value, "html.parser")
    assert note.select_one("[role=alert]").get_text() and not note.find(["b", "i"])
    view.sample.click()
    assert ("refusal" in view.notes["user"].value, "refusal" in view.notes[field].value) == (False, field != "user")


def test_where_nothing_is_live_the_rest_is_shown(view, monkeypatch):
    refusal = ConfigError("time: no article is live <then>")
    monkeypatch.setattr(rec, "make_requests", lambda *_: (_ for _ in ()).throw(refusal))
    view.sample.click()
    assert "no article is live &lt;then&gt;" in view.panels["recommended"].value
    assert "<table" in view.panels["slate"].value and "in view" in view.panels["life"].value


def test_titles_are_shown_as_text_and_nothing_else(smoke, small, smoke_bundle, sampled, tmp_path):
    hostile = replace(smoke, articles=smoke.articles.assign(title=HOSTILE, category_str=HOSTILE))
    keep_model(small[0], smoke, tmp_path)
    view = LiveView(Explorer(hostile, smoke_bundle, ["mlp"], [tmp_path], Settings(k=3)), sampled[0])
    for name in ("history", "slate", "recommended", "life"):
        page = BeautifulSoup(view.panels[name].value, "html.parser")
        assert not page.find("script") and HOSTILE in page.get_text()
    assert HOSTILE not in str(view.figure.outputs)


def test_a_report_shows_one_example_and_how_to_get_the_live_view(finished):
    report = (finished / "outputs" / "smoke" / "reports" / "06_explore.html").read_text(encoding="utf-8")
    notebook = (finished / "outputs" / "smoke" / "notebooks" / "06_explore.ipynb").read_text(encoding="utf-8")
    assert "make lab" in BeautifulSoup(report, "html.parser").get_text()
    assert "widget" not in notebook.split('"metadata": {\n  "kernelspec"')[0].replace("ipywidgets", "")
    assert CLICKED in report
