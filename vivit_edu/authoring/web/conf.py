"""Sphinx's configuration of the course's site; `vivit-edu site` builds with it."""

project = "vivit-edu"
author = "The vivit-edu maintainers"
copyright = "the vivit-edu maintainers, MIT licence"
language = "en"

extensions = ["myst_nb", "vivit_edu.authoring.site"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4

html_theme = "sphinx_book_theme"
html_theme_options = {"use_download_button": False, "navbar_persistent": []}
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_title = "vivit-edu"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
