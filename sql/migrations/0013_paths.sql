-- How a project compares paths: two spellings of one file are one lock.

alter table coordinator.projects add column paths text not null default 'normal'
  constraint projects_paths check (paths in ('exact', 'normal', 'caseless'));
comment on column coordinator.projects.paths is 'How locks compare paths. exact: byte by byte; normal: in Unicode normal form C; caseless: so, and without case. Written by project_set.';
create sequence coordinator.caseless_paths as bigint minvalue 0 start 0;
comment on sequence coordinator.caseless_paths is '0 until a project first ignores the case of paths, then 1 for ever: from then on lock_acquire looks for the rule of paths with capital letters. Set by project_set.';
select setval('coordinator.caseless_paths', 0);

drop function if exists coordinator.project_show(text); -- shows the rule
