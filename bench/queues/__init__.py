"""Queues of jobs, ours and others', each as a process that enqueues and works on command."""
