"""rows of users have hospitals, and foreign keys keep hospitals apart"""

import sqlalchemy as sa
from alembic import op

revision = "8d1f0a6b2c47"
down_revision = "50cc25c623d9"
branch_labels = None
depends_on = None

OF_USERS = ("user_role_mapping", "user_sessions", "login_history")
UNIQUE = {
    "users": ["user_id"],
    "staff": ["staff_id"],
    "patients": ["patient_id"],
    "role_master": ["role_id"],
    "module_master": ["module_id"],
    "role_module_access": ["role_id", "module_id"],
    "user_role_mapping": ["user_id", "role_id"],
    "user_sessions": ["session_id"],
    "login_history": ["history_id"],
}
COVERED = ("branches", "users", "staff", "patients", "role_module_access")  # whose unique keys begin with hospital_id
# Without the triggers: no row gets another updated_at by this, and no session ends.
FILL = """
DO $$
DECLARE
    statement text;
    off text[];
    on_again text[];
BEGIN
    SELECT array_agg(format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname)),
           array_agg(format('ALTER TABLE %s ENABLE %sTRIGGER %I', tgrelid::regclass,
                            CASE tgenabled WHEN 'A' THEN 'ALWAYS ' WHEN 'R' THEN 'REPLICA ' ELSE '' END, tgname))
    INTO off, on_again FROM pg_trigger
    WHERE tgrelid IN ('user_role_mapping'::regclass, 'user_sessions'::regclass, 'login_history'::regclass)
      AND NOT tgisinternal AND tgenabled <> 'D';
    FOREACH statement IN ARRAY coalesce(off, '{}') LOOP
        EXECUTE statement;
    END LOOP;
    UPDATE user_role_mapping AS r SET hospital_id = u.hospital_id FROM users AS u WHERE u.user_id = r.user_id;
    UPDATE user_sessions AS r SET hospital_id = u.hospital_id FROM users AS u WHERE u.user_id = r.user_id;
    UPDATE login_history AS r SET hospital_id = u.hospital_id FROM users AS u WHERE u.user_id = r.user_id;
    FOREACH statement IN ARRAY coalesce(on_again, '{}') LOOP
        EXECUTE statement;
    END LOOP;
END
$$
"""


def upgrade() -> None:
    """Give the rows of users the hospital of their user."""
    for table in OF_USERS:
        op.add_column(table, sa.Column("hospital_id", sa.UUID(), nullable=True))
    op.execute(FILL)
    for table, key in UNIQUE.items():
        columns = ["hospital_id", *key]
        op.create_unique_constraint(op.f(f"uq_{table}_{'_'.join(columns)}"), table, columns)
    for table in OF_USERS:
        op.create_foreign_key(
            op.f(f"fk_{table}_hospital_id_user_id"),
            table,
            "users",
            ["hospital_id", "user_id"],
            ["hospital_id", "user_id"],
            ondelete="CASCADE",
            deferrable=True,
        )
    op.create_foreign_key(
        op.f("fk_login_history_hospital_id_session_id"),
        "login_history",
        "user_sessions",
        ["hospital_id", "session_id"],
        ["hospital_id", "session_id"],
        deferrable=True,
        initially="DEFERRED",
    )
    op.create_index("ix_user_sessions_user_id_hospital_id", "user_sessions", ["user_id", "hospital_id"])
    op.create_index("ix_login_history_session_id_hospital_id", "login_history", ["session_id", "hospital_id"])
    op.create_index(
        "ix_login_history_user_id_hospital_id_login_time", "login_history", ["user_id", "hospital_id", "login_time"]
    )
    op.drop_index("ix_user_sessions_user_id", table_name="user_sessions")
    op.drop_index("ix_login_history_session_id", table_name="login_history")
    op.drop_index("ix_login_history_user_id_login_time", table_name="login_history")
    for table in COVERED:
        op.drop_index(f"ix_{table}_hospital_id", table_name=table)


def downgrade() -> None:
    """Take that column off again."""
    for table in COVERED:
        op.create_index(f"ix_{table}_hospital_id", table, ["hospital_id"])
    op.create_index("ix_login_history_user_id_login_time", "login_history", ["user_id", "login_time"])
    op.create_index("ix_login_history_session_id", "login_history", ["session_id"])
    op.create_index("ix_user_sessions_user_id", "user_sessions", ["user_id"])
    op.drop_index("ix_login_history_user_id_hospital_id_login_time", table_name="login_history")
    op.drop_index("ix_login_history_session_id_hospital_id", table_name="login_history")
    op.drop_index("ix_user_sessions_user_id_hospital_id", table_name="user_sessions")
    op.drop_constraint("fk_login_history_hospital_id_session_id", "login_history", type_="foreignkey")
    for table in OF_USERS:
        op.drop_constraint(f"fk_{table}_hospital_id_user_id", table, type_="foreignkey")
    for table, key in UNIQUE.items():
        op.drop_constraint("_".join(["uq", table, "hospital_id", *key]), table, type_="unique")
    # The triggers that fill the column would break every write to these tables.
    for table in (*OF_USERS, "users"):
        for name in ("hospital_of_user", "hospital_of_other_user", "hospital_of_user_leaves", "hospital_of_user_moves"):
            op.execute(f"DROP TRIGGER IF EXISTS _095_{name} ON {table}")
    for table in OF_USERS:
        op.drop_column(table, "hospital_id")
