"""Images and manifests behind URLs: listed, matched, looked for, read in pieces."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from saccade.jobs.manifests import opening
from saccade.jobs.manifests.finding import Formats, Sieve
from saccade.jobs.manifests.manifest import ListOptions, list_images
from saccade.jobs.manifests.places import folder_of, resolved, suffix_of
from saccade.pipeline import remote
from saccade.pipeline.errors import ManifestError, NoSuchObject, SourceError, StorageGone


@dataclass
class FakeStore:
    """A bucket in memory, in place of the network."""

    objects: dict[str, bytes] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    gone: bool = False

    def head(self, uri: str) -> remote.RemoteFacts:
        self.heads.append(uri)
        if self.gone:
            raise StorageGone("the store does not answer")
        if uri not in self.objects:
            raise NoSuchObject(f"{uri}: no such object")
        return remote.RemoteFacts(len(self.objects[uri]), None, None)

    def read_range(self, uri: str, start: int, length: int, **_: Any) -> bytes:
        return self.objects[uri][start : start + length]

    def list_below(self, uri: str) -> Iterator[tuple[str, remote.RemoteFacts]]:
        if uri.startswith("https://"):
            raise SourceError(f"{uri}: web servers give no lists")
        prefix = uri.rstrip("/") + "/"
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield key.removeprefix(prefix), remote.RemoteFacts(1, None, None)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    fake = FakeStore()
    for name in ("head", "read_range", "list_below"):
        monkeypatch.setattr(remote, name, getattr(fake, name))
    return fake


def put(store: FakeStore, *keys: str) -> None:
    store.objects |= dict.fromkeys((f"s3://b/{key}" for key in keys), b"")


def uris(*arguments: str, **options: Any) -> list[str]:
    return [entry.uri for entry in list_images(arguments, options=ListOptions(**options))]


def test_a_prefix_is_searched_like_a_folder(store: FakeStore) -> None:
    put(store, "s/a.svs", "s/.x/b.svs", "s/c.txt", "s/d/e.tif", "s/m.mrxs", "s/m/Data.tif", "o.svs")
    put(store, "s/z.zarr/zarr.json", "s/z.zarr/c/0/0", "s/z.zarr/image.png")
    found = ["s/a.svs", "s/d/e.tif", "s/m.mrxs", "s/z.zarr"]
    for argument in ("s3://b/s", "s3://b/s/"):
        assert uris(argument) == [f"s3://b/{key}" for key in found]
    assert uris("s3://b/s", formats="tif") == ["s3://b/s/d/e.tif"]
    assert store.heads == []


def test_patterns_match_within_a_folder_or_across_them(store: FakeStore) -> None:
    put(store, "s/a.svs", "s/d/b.svs", "s/d/c.tif")
    assert uris("s3://b/s/*.svs") == ["s3://b/s/a.svs"]
    assert uris("s3://b/s/**/*.svs") == ["s3://b/s/a.svs", "s3://b/s/d/b.svs"]
    assert uris("s3://b/*/d/c*") == ["s3://b/s/d/c.tif"]
    with pytest.raises(ManifestError, match="no object matches"):
        uris("s3://b/s/*.png")


def test_a_listing_that_is_not_sorted_names_no_zarr_for_each_of_its_objects() -> None:
    sieve = Sieve(Formats())
    keys = ["a.zarr/zarr.json", "a.zarr/0/zarr.json", "a.zarr/0/c/1", "b.tif"]
    assert [sieve.image_of(key) for key in keys] == ["a.zarr", "", "", "b.tif"]


def test_a_manifest_behind_a_url_names_images_beside_it(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BLOCK_NBYTES", 7)
    put(store, "m/x.svs", "y.svs")
    store.objects["s3://b/m/list.csv"] = b"image,mpp\nx.svs,0.25\n../y.svs,0.5\n"
    found = list_images(["s3://b/m/list.csv"])
    assert [(e.name, e.uri, e.mpp) for e in found] == [
        ("x", "s3://b/m/x.svs", 0.25),
        ("y", "s3://b/y.svs", 0.5),
    ]


def test_what_is_missing_is_told_in_order_whoever_answers_first(store: FakeStore) -> None:
    put(store, "a.svs")
    rows = [f"s3://b/gone-{n}.svs" for n in range(600)]
    store.objects["s3://b/m.csv"] = "\n".join(["image", "a.svs", *rows]).encode()
    listing = list_images(["s3://b/m.csv"], options=ListOptions(skip=True))
    assert [one.where for one in listing.all_problems()] == rows
    assert [entry.name for entry in listing] == ["a"]


def test_a_zarr_is_there_when_one_of_its_documents_is(store: FakeStore) -> None:
    put(store, "a.zarr/.zgroup", "b.zarr/zarr.json")
    assert len(uris("s3://b/a.zarr", "s3://b/b.zarr")) == 2
    with pytest.raises(ManifestError, match=r"c\.zarr"):
        uris("s3://b/c.zarr")


def test_a_store_that_is_gone_is_one_error_not_one_per_image(store: FakeStore) -> None:
    store.gone = True
    with pytest.raises(StorageGone):
        uris("s3://b/a.svs", "s3://b/b.svs", skip=True)


def test_web_servers_give_no_lists_but_files_and_manifests(store: FakeStore) -> None:
    url = "https://host/a/x.tif?sign=/z.png"
    store.objects[url] = b""
    assert [entry.name for entry in list_images([url])] == ["x"]
    with pytest.raises(ManifestError, match="no lists"):
        uris("https://host/a/")


@pytest.mark.parametrize(
    ("place", "base", "full"),
    [
        ("x.svs", "/m", "/m/x.svs"),
        ("./a//x.zarr/", "/m", "/m/a/x.zarr"),
        ("/d/x.svs", "s3://b/m", "/d/x.svs"),
        ("../d/x.svs", "/m/n", "/m/d/x.svs"),
        ("../../d/../x.svs", "/m", "/x.svs"),
        ("..x/..", "/m", "/m"),
        ("../..x.svs", "/m/n/", "/m/..x.svs"),
        ("file:///d/../e/x.svs", "/m", "/e/x.svs"),
        ("file:///d/a%20b.svs", "s3://b/m", "/d/a b.svs"),
        ("x y?#.svs", "s3://b/m", "s3://b/m/x y?#.svs"),
        ("../../../x.svs", "s3://b/m/n", "s3://b/x.svs"),
        ("x.tif", "https://h/m?sas=1", "https://h/m/x.tif?sas=1"),
        ("gs://c/x.tif", "s3://b/m", "gs://c/x.tif"),
    ],
)
def test_places_are_relative_to_their_manifest(place: str, base: str, full: str) -> None:
    assert resolved(place, base) == full


def test_the_folder_and_suffix_of_a_url_are_those_of_its_path() -> None:
    url = "https://h/a/m.csv?sign=x/y.png"
    assert (folder_of(url), suffix_of(url)) == ("https://h/a?sign=x/y.png", ".csv")
    assert folder_of("s3://b/m.CSV") == "s3://b/"
    assert suffix_of("s3://b/m.CSV") == ".csv"


def test_pieces_behind_a_url_are_a_file(store: FakeStore) -> None:
    whole = bytes(range(251)) * 41
    store.objects["s3://b/m.bin"] = whole
    with opening.open_bytes("s3://b/m.bin") as file:
        assert file.seek(-7, io.SEEK_END) == len(whole) - 7
        assert file.read() == whole[-7:]
        file.seek(13)
        assert file.read(1000) == whole[13:1013]


@pytest.mark.slow
def test_a_bucket_of_a_real_server_is_listed_and_its_parquet_read(tmp_path: Path) -> None:
    server = pytest.importorskip("moto.server", reason="an S3 server: pip install 'moto[server]'")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    running = server.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = running.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_REGION", "us-east-1")
        try:
            __import__("boto3").client("s3").create_bucket(Bucket="archive")
            for name in ("a.svs", "d/b.tif", "d/notes.txt"):
                remote.put_whole(f"s3://archive/s/{name}", b"x")
            file = io.BytesIO()
            parquet.write_table(pyarrow.table({"image": ["s/a.svs", "s/gone.svs"]}), file)
            remote.put_whole("s3://archive/m.parquet", file.getvalue())
            assert uris("s3://archive/s/") == ["s3://archive/s/a.svs", "s3://archive/s/d/b.tif"]
            with pytest.raises(ManifestError, match=r"gone\.svs: no such object"):
                uris("s3://archive/m.parquet")
            assert uris("s3://archive/m.parquet", skip=True) == ["s3://archive/s/a.svs"]
        finally:
            running.stop()
