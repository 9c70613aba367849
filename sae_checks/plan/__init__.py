"""Options and a release -> what will be measured, in which model, on which text."""
