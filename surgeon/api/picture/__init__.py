"""The picture of a surgery: one self-contained HTML file that shows the Stack before and after.

From a Graph, a Plan and a Report, which are plain data: nothing here loads a model, and nothing here
imports torch. `layers` reads what became of every layer, the panels draw it as SVG, `tables` says it in
rows, `page` puts all of it together. Not here: writing the file (`surgeon.io`).
"""

from surgeon.api.picture.page import picture_page

__all__ = ["picture_page"]
