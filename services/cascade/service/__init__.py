"""What the cascade decides.

`plan` lists the stages; `sampling`, `snapshots`, `runs` and `register` are the kinds of work a stage can be; `advance`
moves a campaign along the plan; `campaigns` creates, shows, cancels and resumes one; `report` reads what came of it.
"""
