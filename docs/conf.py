"""Sphinx's settings; the pages of the ini are written from the model at each build."""

from pathlib import Path

import mailsecure
from mailsecure.config.reference import pages

project = "mailsecure"
version = release = mailsecure.__version__
extensions: list[str] = []
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "An SMTP security gateway",
    "fixed_sidebar": True,
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}
html_copy_source = False
nitpicky = True

for _name, _text in pages().items():
    _page = Path(__file__).with_name("ini") / f"{_name}.rst"
    if not _page.exists() or _page.read_text(encoding="utf-8") != _text:
        _page.write_text(_text, encoding="utf-8")
