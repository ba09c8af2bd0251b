"""Sweeps: many runs from one file, on a SLURM cluster or on this machine.

- The sweep file: `spec`, by way of `parsing`, `draws`, `shape` and `condition`; `recipes` for its data. `expand` makes
  runs of it, which `checks` and `metric_names` look through. The other file is `cluster`'s: what a site calls things.
- The record of a sweep: its folder (`sweep`), what was sent (`submissions`), with which code (`snapshot`), and what
  came of it (`attempts`). `records` reads small files that may be torn.
- Sending: `prepare`; then `sending` gives each run its `order` and sends it to SLURM (`submit`, `scheduler`, `strays`),
  or trains it here (`local`).
- In a job: `supervisor` beside every trainer; `job` decides what becomes of the run.
- Looking: `status` gathers (`runfolder`), `states` judges, `table` tells.
- Collecting: `collect`, from `results`, `ranking` and `hours` to `summary` and `page`.

`verbs`, with `verbs_send` and `verbs_look`, are the commands.
"""
