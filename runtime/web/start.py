"""Starts the live page of `v2a run --web`, in the policy's process."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack
from multiprocessing.connection import Pipe

from runtime.control.client import ControlClient
from runtime.host import process
from runtime.recording.sinks import SinkSpec, receive, send
from runtime.web.guard import Address, listen, new_token, parse_address
from runtime.web.process import Setup
from runtime.web.view import About
from runtime.workers import Workers
from v2a.errors import ConfigError, SafetyFault
from v2a.output import say

START_S = 60.0  # the first import of numpy after a Jetson boots takes long
END_S = 5.0  # longer than the page's last look


def page_address(text: str, remote: bool) -> Address:
    """Return the address to listen on.

    Raises ConfigError if `text` is no address, or if other machines could reach it and `remote` is
    False.
    """
    address = parse_address(text)
    if not (remote or address.is_loopback):
        raise ConfigError(
            f"--web {text}: other machines could reach it; add --web-remote to allow that, or "
            "leave out the address and use `ssh -L`"
        )
    return address


class LivePage:
    """The process of the live page. Use as a context manager; it waits for the process's end.

    The page's address is taken at once, so that an address in use ends the run before a motor is
    touched. Raises ConfigError if it is not available.
    """

    def __init__(self, address: Address, remote: bool) -> None:
        self._token = new_token() if remote else None
        self._ours = ExitStack()
        with ExitStack() as handed_on:
            listener = handed_on.enter_context(listen(address))
            control_end, page_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._feed, outlet = Pipe()
            for end in (page_end, outlet):
                handed_on.enter_context(end)
            self._url = Address(address.host, listener.getsockname()[1]).url
            descriptors = (each.fileno() for each in (listener, page_end, outlet))
            self._child = process.start("runtime.web.process", *descriptors)
        self._control_end = self._ours.enter_context(control_end)
        self._ours.enter_context(self._feed)

    def start(self, control: ControlClient, about: About) -> SinkSpec:
        """Wait until the page serves. Call it before `control` is opened. Returns the page's sink.

        Raises SafetyFault if the page does not start: a run must not arm without its STOP.
        """
        try:
            send(self._feed, Setup(about, self._token))
            started = self._feed.poll(START_S) and receive(self._feed)
        except (EOFError, ConnectionError):
            started = False
        if not started:
            raise SafetyFault(f"the live page did not start within {START_S:g} s; try again")
        control.page = self._control_end
        key = "" if self._token is None else f"#{self._token}"
        say(f"live page: {self._url}{key}")
        feed = self._feed.fileno()
        return SinkSpec("runtime.web.sink:WebSink", {"feed": feed}, descriptors=(feed,))

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()  # it hangs, and would keep the address
            self._child.wait()


def about_run(workers: Workers) -> About:
    """The facts about a run that its page shows."""
    config = workers.config
    return About(
        robot=config.robot.name,
        policy=workers.bundle.manifest.policy,
        instruction=config.instruction,
        joints=tuple(joint.name for joint in config.robot.joints),
        temperature_max_c=config.safety.health.temperature_max_c,
        dry_run=workers.control.dry_run,
        stages=workers.bundle.manifest.stages,
    )
