"""What can go wrong in a job that a person can mend."""


class JobError(Exception):
    """A job cannot go on. Its text is one line: what was wrong, and what to do about it.

    The command line prints the line on stderr and exits with status 2.
    """
