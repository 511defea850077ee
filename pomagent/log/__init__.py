"""Events and how they are written: formats, the journal, repeats, crash reports."""
