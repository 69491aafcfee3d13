-- The column with the name of a project is called project in the rows of projects, as in every other row.

drop view if exists coordinator.projects_live cascade; -- and the functions that return its rows; the function files make them again
drop function if exists coordinator.project_show(text);
