"""What `wardlink retime` does: lines that a receiver wrote, with the times that are known by now."""

import sys
from pathlib import Path

from gateway.receiver.retime import learn_lines, retime_line

OK, FAILED = 0, 1


def retime(lines: Path, output: Path | None) -> int:
    """Reads `lines` twice, and writes a new file, or to standard output."""
    try:
        with lines.open("rb") as file:
            journals = learn_lines(file)
            file.seek(0)
            if output is None:
                sys.stdout.buffer.writelines(retime_line(line, journals) for line in file)
                return OK
            with output.open("xb") as written:
                written.writelines(retime_line(line, journals) for line in file)
    except OSError as error:
        print(f"wardlink: {error.filename}: {error.strerror}; name another", file=sys.stderr)
        return FAILED
    return OK
