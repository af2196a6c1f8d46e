"""What stands between hostile updates and a rule: `defence.defend` joins the parts, one file each."""
