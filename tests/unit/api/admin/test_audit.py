async def test_every_change_is_recorded_with_who_what_when_and_from_where(site):
    user = site.make_user()
    site.clock.at += 5
    await site.send("PATCH", f"/admin/api/users/{user.id}", {"tier": "sub", "models": ["b", "a"]})
    [record, *_] = await site.get("/admin/api/audit")
    assert record == {
        "id": record["id"],
        "at": "1970-01-12T13:46:45.000Z",
        "actor": "admin",
        "key_id": record["key_id"],
        "peer": "192.0.2.1",
        "action": "user.change",
        "subject": f"user:{user.id}",
        "details": {
            "tier": {"before": "payg", "after": "sub"},
            "models": {"before": None, "after": ["a", "b"]},
        },
    }
    assert site.admin.startswith(f"sk-sw-{record['key_id']}-")


async def test_records_come_in_pages_and_by_subject(site):
    first, second = site.make_user("a@example.org"), site.make_user("b@example.org")
    page = await site.get("/admin/api/audit", query="limit=1")
    assert [record["subject"] for record in page] == [f"user:{second.id}"]
    page = await site.get("/admin/api/audit", query=f"before={page[0]['id']}&limit=1")
    assert [record["subject"] for record in page] == [f"user:{first.id}"]
    found = await site.get("/admin/api/audit", query=f"subject=user:{first.id}")
    assert [record["action"] for record in found] == ["user.create"]


async def test_the_chain_is_whole(site):
    site.make_user()
    assert await site.get("/admin/api/audit/check") == {"ok": True, "broken_at": None}


async def test_a_refused_change_leaves_no_record(site):
    before = site.audited()
    await site.refused("POST", "/admin/api/users", {"email": "nobody"})
    await site.refused("PATCH", "/admin/api/users/1", {"active": False})
    assert site.audited() == before
