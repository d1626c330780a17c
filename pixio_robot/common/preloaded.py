"""Imported last by the server that workers are forked from, when it holds all modules they share.

Frozen objects are not looked at by garbage collections: workers go on sharing their memory, and the server, for whose
end the program waits, ends at once instead of after a second of looking for cycles.
"""

import gc

gc.freeze()
