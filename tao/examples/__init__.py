"""Programs to run and to learn from: `python -m tao.examples.chat demo`; `echo`,
`pingpong`, `timer`, `guestbook` and `json_lines` likewise.

The files named readme_* are the code on the project's front page, as it stands there.
"""
