"""SDK and command line of FLAI: the custodian's and validator's agents, the buyer, the auditor.

Nothing of it imports Django. `python3 -m workers.client` lists the commands; `Buyer` is the call
for programs. What leaves a site is secret-shared and sealed here, before it is sent.
"""
