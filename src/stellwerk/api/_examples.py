"""Answers as the OpenAPI document shows them."""

from typing import Any, Final

USER: Final[dict[str, Any]] = {
    "id": 7,
    "email": "ada@example.org",
    "name": "Ada",
    "role": "user",
    "tier": "payg",
    "active": True,
    "has_password": False,
    "created_at": "2026-11-21 09:30:00",
    "balance": 25.0,
    "held": 0.0,
    "key_count": 1,
    "total_usage": 1234,
    "models": None,
    "requests_per_minute": 60,
    "burst": None,
    "tokens_per_minute": None,
    "concurrent_requests": None,
    "budget": 100.0,
    "budget_window": "month",
}

KEY: Final[dict[str, Any]] = {
    "id": "k7d3m2q5xa",
    "key_prefix": "sk-sw-k7d3m2q5xa",
    "last_four": "x9Qw",
    "user_id": 7,
    "name": "laptop",
    "role": "user",
    "state": "active",
    "networks": ["192.0.2.0/24"],
    "priority": "high",
    "created_at": "2026-11-21T09:30:00.000Z",
    "expires_at": "2027-02-19T09:30:00.000Z",
    "revoked_at": None,
    "last_used_at": "2026-11-21T10:02:11.250Z",
    "models": None,
    "requests_per_minute": None,
    "burst": None,
    "tokens_per_minute": None,
    "concurrent_requests": None,
    "budget": None,
    "budget_window": None,
}

NEW_KEY: Final[dict[str, Any]] = {
    "key": "sk-sw-k7d3m2q5xa-<43 characters that are shown this one time>",
    "prefix": "sk-sw-k7d3m2q5xa",
    **KEY,
}

STATEMENT_LINE: Final[dict[str, Any]] = {
    "id": 12,
    "at": "2026-11-21T09:30:00.000Z",
    "kind": "top_up",
    "amount": 25.0,
    "currency": "EUR",
    "note": "Bank transfer 4711",
    "actor": "admin",
    "call_id": None,
}

ACCOUNT: Final[dict[str, Any]] = {
    "id": 7,
    "email": "ada@example.org",
    "name": "Ada",
    "role": "user",
    "tier": "payg",
    "balance": 25.0,
    "held": 0.0,
    "currency": "EUR",
    "created_at": "2026-11-21 09:30:00",
    "api_keys": [
        {
            "id": "k7d3m2q5xa",
            "key_prefix": "sk-sw-k7d3m2q5xa",
            "name": "laptop",
            "created_at": "2026-11-21 09:30:00",
        }
    ],
    "budgets": [
        {
            "of": "user",
            "window": "month",
            "amount": 100.0,
            "spent": 12.5,
            "held": 0.0,
            "remaining": 87.5,
            "resets_at": "2026-12-01T00:00:00.000Z",
        }
    ],
}

USAGE_DAY: Final[dict[str, Any]] = {
    "date": "2026-11-21",
    "tokens_in": 1200,
    "tokens_out": 340,
    "cost": 0.000188,
    "requests": 4,
    "avg_latency": 812.5,
}

RATE_LIMIT: Final[dict[str, Any]] = {
    "tier": "payg",
    "max_per_minute": 25,
    "remaining": 24,
    "resets_in": 41,
    "unlimited": False,
}

MODEL: Final[dict[str, Any]] = {
    "name": "stellwerk-demo",
    "type": "text",
    "port": 4801,
    "capabilities": {"text": True, "vision": False, "audio": False, "embedding": False, "tts": False},
}
