"""Generators and critics, registered by name; importing this package registers all of ours."""

from infogan.networks import paper as paper  # registers its networks
from infogan.networks import residual as residual
from infogan.networks import spectral as spectral
from infogan.networks.base import NETWORKS, Network, to_network_range, to_uint8
from infogan.networks.critic import Critic, CriticOutput

__all__ = ["NETWORKS", "Critic", "CriticOutput", "Network", "to_network_range", "to_uint8"]
