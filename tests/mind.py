"""Made-up files in MIND's form, from a generated bundle."""

import json
from pathlib import Path

import pandas as pd

NEWS_COLUMNS = ("category_str", "topic", "title", "subtitle", "url")


def write_mind(bundle: Path, out: Path) -> tuple[Path, Path]:
    """Write the impressions of a bundle as ``MINDsmall_train`` and ``MINDsmall_dev``; return the two folders.

    The last article of each part's slates is left out of its news.tsv, as real ones lack some.
    """
    articles = pd.read_parquet(bundle / "articles.parquet").set_index("article_id")
    articles["topic"] = [topics[0] if topics is not None and len(topics) else "" for topics in articles["topics"]]
    folders = []
    for split, name in (("train", "MINDsmall_train"), ("validation", "MINDsmall_dev")):
        rows = pd.read_parquet(bundle / split / "behaviors.parquet")
        past = pd.read_parquet(bundle / split / "history.parquet").set_index("user_id")["article_id_fixed"]
        folder = out / name
        folder.mkdir(parents=True)
        with (folder / "behaviors.tsv").open("w", encoding="utf-8", newline="") as stream:
            for number, row in enumerate(rows.itertuples(), 1):
                read = " ".join(f"N{article}" for article in past.get(row.user_id, []))
                clicked = set(row.article_ids_clicked)
                pairs = " ".join(f"N{article}-{int(article in clicked)}" for article in row.article_ids_inview)
                time = f"{row.impression_time:%-m/%-d/%Y %-I:%M:%S %p}"
                stream.write(f"{number}\tU{row.user_id}\t{time}\t{read}\t{pairs}\n")
        lost = max(article for slate in rows["article_ids_inview"] for article in slate)
        entities = json.dumps([{"Label": 'A "quoted" name', "Type": "P", "WikidataId": "Q1"}])
        with (folder / "news.tsv").open("w", encoding="utf-8", newline="") as stream:
            for article, row in articles.drop(lost)[list(NEWS_COLUMNS)].fillna("").iterrows():
                stream.write("\t".join([f"N{article}", *row, entities, "[]"]) + "\n")
        folders.append(folder)
    return folders[0], folders[1]
