"""Loading plugins, each on its own, so that a broken one does not affect the others."""

import functools
import importlib.metadata
import inspect
import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pluggy

from cpuaccel.errors import did_you_mean
from cpuaccel.pipeline import Options
from cpuaccel.plugin import hookspecs
from cpuaccel.plugin.backend import Backend, Form
from cpuaccel.plugin.slow import warn_if_slow

logger = logging.getLogger("cpuaccel")

ENTRY_POINT_GROUP = "cpuaccel"

DISABLE = "CPUACCEL_DISABLE_PLUGINS"
"""Environment variable with the names of plugins to block, separated by commas."""


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that failed to load, with the type and message of the error."""

    plugin: str
    reason: str


@dataclass(frozen=True)
class BlockedPlugin:
    """A plugin that the user has blocked, by an environment variable or a file."""

    plugin: str
    by: str


class PluginHost:
    """The plugins of this environment and what they offer.

    Attributes:
        backends: backend classes by name.
        origins: for each backend's name, the plugin that offers it.
        broken: the plugins that failed to load.
        blocked: the plugins that the user has blocked.
    """

    def __init__(
        self,
        entry_points: Iterable[importlib.metadata.EntryPoint],
        disabled: Mapping[str, str] | None = None,
    ) -> None:
        """Load plugins, except those named in ``disabled`` with what blocks them."""
        self.backends: dict[str, type[Backend[Options]]] = {}
        self.origins: dict[str, str] = {}
        self.broken: list[BrokenPlugin] = []
        self.blocked: list[BlockedPlugin] = []
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._entry_points = [(_label(e), e) for e in sorted(entry_points, key=lambda e: e.name)]
        for name, by in sorted((disabled or {}).items()):
            self.block(name, by)
        for label, entry_point in self._entry_points:
            if not self._manager.is_blocked(label):
                self._load(label, entry_point)

    def _load(self, label: str, entry_point: importlib.metadata.EntryPoint) -> None:
        try:
            with warn_if_slow(f"importing plugin {label}"):
                plugin = entry_point.load()
            self.register(plugin, label)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may even raise SystemExit
            reason = f"{type(error).__name__}: {error}"
            self.broken.append(BrokenPlugin(label, reason))
            logger.warning("plugin %s failed to load: %s", label, reason)

    def block(self, name: str, by: str) -> None:
        """Block a plugin by the name of its entry point: don't load it, or remove it again."""
        labels = [label for label, entry_point in self._entry_points if entry_point.name == name]
        if not labels:
            names = [entry_point.name for _, entry_point in self._entry_points]
            logger.warning(
                "%s blocks an unknown plugin %r%s Installed: %s",
                by,
                name,
                did_you_mean(name, names),
                ", ".join(names) or "none",
            )
        for label in labels:
            if not self._manager.is_blocked(label):
                self._manager.set_blocked(label)  # unregisters it, too
                self._remove_backends(label)
                self.blocked.append(BlockedPlugin(label, by))

    def register(self, plugin: object, label: str) -> None:
        """Add a plugin with all of its hooks and backends, or nothing of it.

        Raises:
            pluggy.PluginValidationError: a hook is misspelled or takes unknown arguments, or a
                backend breaks the contract or has the name of another plugin's backend.
        """
        if self._manager.is_registered(plugin):
            raise pluggy.PluginValidationError(
                plugin, f"already registered as {self._manager.get_name(plugin)}"
            )
        try:
            self._manager.register(plugin, label)
            self._manager.check_pending()
            offered = self._load_backends(plugin, label)
        except BaseException:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        self.backends |= offered
        self.origins |= dict.fromkeys(offered, label)

    def unregister(self, plugin: object) -> None:
        """Remove a plugin and the backends that it offers."""
        self._remove_backends(self._manager.get_name(plugin))
        self._manager.unregister(plugin)

    def _remove_backends(self, label: str | None) -> None:
        for name in [name for name, origin in self.origins.items() if origin == label]:
            del self.backends[name], self.origins[name]

    def observe(self, hook: str, **arguments: object) -> None:
        """Call every plugin's hook separately: one that raises must not stop the others."""
        for label, plugin in self._manager.list_name_plugin():
            if plugin is None:  # blocked
                continue
            try:
                self._caller(hook, plugin)(**arguments)
            except (Exception, SystemExit):
                logger.warning("plugin %s: hook %s failed", label, hook, exc_info=True)

    def _caller(self, hook: str, plugin: object) -> pluggy.HookCaller:
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        return self._manager.subset_hook_caller(hook, others)

    def _load_backends(self, plugin: object, label: str) -> dict[str, type[Backend[Options]]]:
        offered: dict[str, type[Backend[Options]]] = {}
        results = self._caller("cpuaccel_backends", plugin)()
        for backend in itertools.chain.from_iterable(results):
            if mistake := _mistake(backend):
                raise pluggy.PluginValidationError(plugin, mistake)
            if backend.name in self.backends or backend.name in offered:
                owner = self.origins.get(backend.name, label)
                raise pluggy.PluginValidationError(
                    plugin, f"backend name {backend.name!r} is already used by {owner}"
                )
            offered[backend.name] = backend
        return offered


def _label(entry_point: importlib.metadata.EntryPoint) -> str:
    distribution = entry_point.dist
    if distribution is None:
        return entry_point.name
    return f"{entry_point.name} ({distribution.name} {distribution.version})"


def _mistake(backend: object) -> str | None:
    """Describe how an offered backend breaks the contract; None if it doesn't."""
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        return f"cpuaccel_backends returned {backend!r}, which is not a Backend class"
    missing = [a for a in ("name", "summary", "takes", "gives") if not hasattr(backend, a)]
    if missing:
        return f"{backend.__name__} has no {' and no '.join(missing)}"
    if inspect.isabstract(backend):
        missing = sorted(backend.__abstractmethods__)
        return f"{backend.__name__} does not define {' and '.join(missing)}"
    if not (isinstance(backend.takes, Form) and isinstance(backend.gives, Form)):
        return f"{backend.__name__}.takes and .gives must be members of cpuaccel.Form"
    if not (isinstance(backend.Options, type) and issubclass(backend.Options, Options)):
        return f"{backend.__name__}.Options must be a subclass of cpuaccel.Options"
    return None


_disabled: dict[str, str] = {}


def disable_plugins(names: Iterable[str], by: str) -> None:
    """Block plugins in this process by the names of their entry points."""
    for name in names:
        if name not in _disabled:
            _disabled[name] = by
            if plugin_host.cache_info().currsize:
                plugin_host().block(name, by)


@functools.cache
def plugin_host() -> PluginHost:
    """Return the plugins of this process, loaded on the first call."""
    names = [name.strip() for name in os.environ.get(DISABLE, "").split(",")]
    disabled = {**_disabled, **dict.fromkeys(filter(None, names), DISABLE)}
    return PluginHost(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), disabled)
