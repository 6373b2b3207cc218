"""Where a run's results go when not into its folder: settled once, and never moved. Writes none."""

from __future__ import annotations

from saccade.pipeline.errors import ResumeRefused, UsageError
from saccade.pipeline.remote_stores import is_remote, is_web
from saccade.pipeline.results_place import results_elsewhere
from saccade.pipeline.store_object_shelf import check_writable
from saccade.workers.folder import RunFolder


def settle_results(folder: RunFolder, asked: str | None, *, known: bool) -> str | None:
    """The URI below which a run's results lie; None where they lie in its folder.

    Args:
        folder: of the run.
        asked: what was asked for now; None asks for what it was before.
        known: whether the run was begun before.

    Raises:
        UsageError: no object store can have such a name.
        ResumeRefused: the run has its results elsewhere.
        StoreError: no such bucket.
        StorageGone: it may not be written, or does not answer.
    """
    recorded = results_elsewhere(folder.root)
    wanted = recorded if asked is None else asked.rstrip("/")
    if known and wanted != recorded:
        raise ResumeRefused(
            f"{folder.root}: this run has its results in {recorded or 'its own folder'}, not in "
            f"{wanted}; leave --results out, or use a new folder with -o"
        )
    if wanted is not None:
        if not is_remote(wanted) or is_web(wanted):
            raise UsageError(
                f"--results {wanted}: s3://BUCKET/PREFIX, gs:// or az:// expected; on a disk, "
                "results lie in the run's folder (-o)"
            )
        check_writable(wanted)
    return wanted
