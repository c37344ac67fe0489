"""TensorBoard's event files, read back."""


def events(folder):
    """All events, in order of the files' names, their checksums compared."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            record = data[12 : 12 + length]
            crc = int.from_bytes(data[12 + length : 16 + length], "little")
            assert crc == masked_crc32c(record)
            yield Event.FromString(record)
            data = data[16 + length :]


def scalars(folder):
    """What TensorBoard shows: a part of the run that starts again replaces what came after."""
    shown = {}
    for event in events(folder):
        if event.HasField("session_log"):
            shown = {key: value for key, value in shown.items() if key[1] < event.step}
        for value in event.summary.value:
            if value.HasField("simple_value"):
                assert (value.tag, event.step) not in shown
                shown[value.tag, event.step] = value.simple_value
    return shown
