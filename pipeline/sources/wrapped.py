"""A source that stands before another one and changes what is read of it."""

from __future__ import annotations

from saccade.pipeline.sources.base import Identity, Source
from saccade.pipeline.sources.reader import Reader


class Wrapped(Reader):
    """The same image; a subclass says what is different. Closing it closes the other."""

    def __init__(self, inner: Source) -> None:
        self.inner = inner
        self.uri, self.format = inner.uri, inner.format
        self.levels, self.channels, self.dtype = inner.levels, inner.channels, inner.dtype
        self.channel_names, self._bands = inner.channel_names, inner.bands
        self.pixel_size, self.georeference = inner.pixel_size, inner.georeference
        self.nodata, self.palette = inner.nodata, inner.palette
        self.is_raster, self.notes = inner.is_raster, inner.notes
        self._masked, self.cache_nbytes = inner.lacks_data, inner.cache_nbytes

    def identity(self) -> Identity:
        """Of the image itself."""
        return self.inner.identity()

    def close(self) -> None:
        """Close the image; closing twice is allowed."""
        super().close()
        self.inner.close()
