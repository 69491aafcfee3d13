"""A demonstration on real input: a manager and six agents, each a process, over a source tree.

| module    | what it is                                                             |
|-----------|------------------------------------------------------------------------|
| main      | the whole: starts everything, follows, kills one agent, tells the story |
| place     | which database, and the daemon beside it                               |
| processes | starting, watching and ending processes                                |
| leash     | a program that is not of the demonstration, ended with it              |
| manager   | the manager's process                                                  |
| agent     | an agent's process                                                     |
| board     | the shares as the events tell them; what manager and agents go by      |
| source    | the files, their division into shares, and the work on one             |
| story     | what happened, put together from the events alone                      |
| verdict   | what is wrong with it, if anything                                     |
| report    | the summary, as a table or as JSON                                     |

Everything the processes know of each other went through the coordinator: signals are the shared state, directives the
orders, events what everybody follows. No process polls.
"""
