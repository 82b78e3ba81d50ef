"""What tests of pages ask of one."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """What acts in a page or loads from elsewhere, its text, and its start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.text = ""
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def all(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "iframe", "object", "embed", "form", "base", "audio", "video"}:
            self.active.append(f"<{tag}>")
        local = r"data:,|#[^:]*|(?!//)[\w./#%-]*"
        picture = r"data:image/[a-z+]+;base64,[\w+/=]*"
        allowed = {("a", "href"): rf"{local}|data:text/csv;base64,[\w+/=]*", ("link", "href"): local,
                   ("img", "src"): picture, ("source", "srcset"): picture}  # fmt: skip
        for name, value in ((name, value or "") for name, value in attrs):
            loads = name in {"href", "src", "srcset", "action", "formaction", "poster", "background", "xlink:href"}
            bad = not re.fullmatch(allowed[tag, name], value) if (tag, name) in allowed else loads
            acts = name.startswith("on") or (name, value) == ("id", "hacked") or re.search(r"url\s*\(", value.lower())
            if bad or acts:
                self.active.append(f"<{tag} {name}={value[:80]}>")

    def handle_data(self, data):
        if self.cdata_elem == "style":
            self.active += re.findall(r"url\([^)]*\)|@import.*", data)
        self.text += data
