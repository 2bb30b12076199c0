"""Whether W&B is online: decided once, within seconds and without a prompt."""

import base64
import http.client
import json
import logging
import netrc
import os
import urllib.error
import urllib.request
from urllib.parse import urlparse

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import SWEEP_VARIABLE
from busi_lab.tracking.settings import WandbSettings

log = logging.getLogger(__name__)

LOOK_VARIABLE = "BUSI_LAB_WANDB_LOOK"
"""Environment variable that lets a job of a sweep look for the network itself, because the sweep is elsewhere."""

_PROBE_SECONDS = 5.0


def choose_mode(settings: WandbSettings, sync: str) -> str:
    """Decide once whether W&B is online, and say so in one line.

    Args:
        settings: checked settings.
        sync: path, or pattern, of the offline runs for the command that sends them later.

    Raises:
        UserError: ``mode=online`` was asked for and cannot be.
    """
    wanted = os.environ.get("WANDB_MODE", "auto") if settings.mode == "auto" else settings.mode
    wanted = {"dryrun": "offline", "run": "auto"}.get(wanted, wanted)
    if wanted in ("offline", "disabled"):
        if wanted == "offline" and (SWEEP_VARIABLE not in os.environ or LOOK_VARIABLE in os.environ):
            log.info("W&B is offline; send it later with: wandb sync %s", sync)
        return wanted
    if wanted == "online" and SWEEP_VARIABLE in os.environ and LOOK_VARIABLE not in os.environ:
        return "online"  # the sweep has looked
    obstacle = _obstacle()
    if obstacle is None:
        log.info("W&B is online at %s, project %s", _base_url(), settings.project)
        return "online"
    if settings.mode == "online":
        raise UserError(f"logger.wandb.mode=online: {obstacle}; mend that, or set logger.wandb.mode=offline")
    log.info("W&B is offline: %s; send it later with: wandb sync %s", obstacle, sync)
    return "offline"


def _base_url() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")


def _obstacle() -> str | None:
    """Why W&B cannot be online, found within seconds and without a prompt; None where it can."""
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    url = _base_url()
    key = os.environ.get("WANDB_API_KEY") or _netrc_key(urlparse(url).hostname or "")
    if not key:
        return "no API key is configured (wandb login sets one)"
    token = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
    query = json.dumps({"query": "query { viewer { id } }"}).encode()
    try:
        request = urllib.request.Request(f"{url}/graphql", data=query, headers=headers)
        with urllib.request.urlopen(request, timeout=_PROBE_SECONDS) as response:
            answer = json.loads(response.read(1 << 20))
        viewer = answer.get("data", {}).get("viewer") if isinstance(answer, dict) else None
        return None if viewer else f"{url} does not know the API key"
    except urllib.error.HTTPError as error:
        return f"{url} refuses the API key (HTTP {error.code})" if error.code in (401, 403) else f"{url}: {error}"
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
        return f"{url} does not answer ({one_line(error)[:80]})"


def _netrc_key(host: str) -> str | None:
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None
