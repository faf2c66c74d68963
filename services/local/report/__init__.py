"""The report of a campaign, or of one run.

`content` is its plain data, `runs` the part about training; `tables` and `curves` say it for people, and `markdown` and `plot` write
it into files. The terminal's form is in `services/local/rendering.py`.
"""
