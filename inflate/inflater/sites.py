"""Which temporal layer goes to which place of an image model, and the layers themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from inflate.adapters import adapter_of
from inflate.errors import InputError
from inflate.layers import GuidanceEmbedding, Place, TemporalLayer
from inflate.schemes import Placed, Scheme, resolve_scheme


@dataclass(frozen=True)
class Site:
    """A place in an image model, and what goes there."""

    place: Place
    placed: Placed

    @property
    def name(self) -> str:
        """Dotted name of the module in the image model."""
        return self.place.name

    @property
    def channels(self) -> int:
        """Of what the module answers."""
        return self.place.channels

    @property
    def kind(self) -> str:
        """What such sites are called in reports."""
        return self.placed.layer.kind or self.place.where[0]

    @property
    def key(self) -> str:
        """The temporal layer's name in `InflatedModel.temporal`; several sites may have one layer."""
        return self.placed.layer.name_at(self.place)

    def build(self, num_frames: int, image_model: nn.Module) -> TemporalLayer:
        """A new layer, float32, on the default device; changes nothing until trained."""
        module = image_model.get_submodule(self.name)
        return self.placed.layer.at(self.place, module, num_frames, self.placed.options)


def find_sites(image_model: nn.Module, scheme: str | Scheme = "make-a-video") -> tuple[Site, ...]:
    """The sites of `image_model` under `scheme`, in the order of the module tree.

    Raises:
        InputError: the model's class is unknown, or the scheme does not apply to it.
    """
    adapter, scheme = adapter_of(image_model), resolve_scheme(scheme)
    start = f"scheme {scheme.name!r} finds no place in this {type(image_model).__name__}"
    reasons = adapter.reasons()
    for one in scheme.layers:
        if one.where in reasons:
            raise InputError(f"{start}: {reasons[one.where]}; choose {adapter.instead}")
    adapter.check_scheme(scheme)
    sites = {
        (place.name, one.layer.name_at(place)): Site(place, one)
        for place in adapter.places()
        for one in scheme.all_layers()
        if one.where in place.where
    }
    found = {site.placed for site in sites.values()}
    missing = [one for one in scheme.layers if one.layer.needed and one not in found]
    if missing or not any(one.layer.mixes for one in found):
        wanted = " and ".join(str(one) for one in missing or scheme.layers if one.layer.mixes)
        raise InputError(
            f"{start}: it needs something that the model has not ({wanted}); choose a scheme with temporal "
            "convolutions or motion modules"
        )
    # Made last, so that the random weights of the others are those of a scheme without it.
    return tuple(sorted(sites.values(), key=lambda site: site.placed.layer is GuidanceEmbedding))


def build_temporal_layers(sites: tuple[Site, ...], num_frames: int, image_model: nn.Module) -> nn.ModuleDict:
    """New temporal layers for `sites`, float32, on the default device; together they change nothing until trained.

    `image_model` may be on the meta device: only shapes are read off it.
    """
    return nn.ModuleDict({key: make() for key, make in temporal_layer_makers(sites, num_frames, image_model)})


def temporal_layer_makers(
    sites: tuple[Site, ...], num_frames: int, image_model: nn.Module
) -> list[tuple[str, Callable[[], nn.Module]]]:
    """What `build_temporal_layers` makes, by key and in its order, each layer only when it is called for."""
    firsts: dict[str, Site] = {}
    for site in sites:
        firsts.setdefault(site.key, site)  # one layer may serve several sites
    return [(key, partial(site.build, num_frames, image_model)) for key, site in firsts.items()]
