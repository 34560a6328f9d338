"""The protobuf types, from the descriptor set that the repository holds."""

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).resolve().parents[2] / "proto" / "descriptors.bin"


def _load():
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    waiting = list(files.file)
    while waiting:
        # A file comes after those that it imports.
        known = {file.name for file in files.file} - {file.name for file in waiting}
        file = next(file for file in waiting if set(file.dependency) <= known)
        pool.Add(file)
        waiting.remove(file)
    return pool


_POOL = _load()


def descriptor(name):
    """The descriptor of `ransomeye.v1.<name>`."""
    return _POOL.FindMessageTypeByName(f"ransomeye.v1.{name}")


def message_class(name):
    """The class of `ransomeye.v1.<name>`."""
    return message_factory.GetMessageClass(descriptor(name))
