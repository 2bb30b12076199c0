"""Public datasets and common formats -> a folder with ``labels.csv``, a file for each format.

A format is a module here with a function ``read(source)``, which yields an :class:`~busi_lab.data.importers.item.Item`
for each scan and says of everything that it does not take why; :data:`busi_lab.data.formats.IMPORT_FORMATS` lists it.
What all formats share is in ``source`` (the files and what becomes of them), ``tables`` and ``writing``.
"""
