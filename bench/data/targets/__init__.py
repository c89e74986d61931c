"""Folders of targets: where they are, what their files hold, what is made where one is missing, and what lies near."""
