-- log_append checks the kind, as document_put does that of documents. The constraint was read, compiled and evaluated at each append.

alter table coordinator.logs drop constraint logs_kind;
