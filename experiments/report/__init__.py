"""Tables of committed records: published figures beside ours."""
