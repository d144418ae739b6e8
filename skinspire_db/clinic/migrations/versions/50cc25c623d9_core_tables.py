"""core tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "50cc25c623d9"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the core tables."""
    op.create_table(
        "hospitals",
        sa.Column("hospital_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("license_no", sa.String(length=50), nullable=True),
        sa.Column("address", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("contact_details", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("encryption_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=True),
        sa.Column("timezone", sa.String(length=50), server_default=sa.text("'Asia/Kolkata'"), nullable=True),
        sa.Column("default_currency", sa.String(length=3), server_default=sa.text("'INR'"), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_by", sa.String(length=50), nullable=True),
        sa.PrimaryKeyConstraint("hospital_id", name=op.f("pk_hospitals")),
        sa.UniqueConstraint("license_no", name=op.f("uq_hospitals_license_no")),
    )
    op.create_table(
        "parameter_settings",
        sa.Column("param_code", sa.String(length=50), nullable=False),
        sa.Column("param_value", sa.String(length=500), nullable=True),
        sa.Column("data_type", sa.String(length=20), nullable=True),
        sa.Column("module", sa.String(length=50), nullable=True),
        sa.Column("is_editable", sa.Boolean(), server_default=sa.text("true"), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.PrimaryKeyConstraint("param_code", name=op.f("pk_parameter_settings")),
    )
    op.create_table(
        "branches",
        sa.Column("hospital_id", sa.UUID(), nullable=False),
        sa.Column("branch_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("address", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("contact_details", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("timezone", sa.String(length=50), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_by", sa.String(length=50), nullable=True),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospitals.hospital_id"], name=op.f("fk_branches_hospital_id")),
        sa.PrimaryKeyConstraint("branch_id", name=op.f("pk_branches")),
        sa.UniqueConstraint("hospital_id", "branch_id", name=op.f("uq_branches_hospital_id_branch_id")),
    )
    op.create_index(op.f("ix_branches_hospital_id"), "branches", ["hospital_id"], unique=False)
    op.create_index(
        "ix_branches_live",
        "branches",
        ["hospital_id", "name"],
        unique=False,
        postgresql_where=sa.text("NOT is_deleted AND is_active"),
    )
    op.create_table(
        "module_master",
        sa.Column("module_id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("module_name", sa.String(length=50), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=True),
        sa.Column("parent_module", sa.Integer(), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=True),
        sa.Column("icon", sa.String(length=50), nullable=True),
        sa.Column("route", sa.String(length=100), nullable=True),
        sa.Column("status", sa.String(length=20), server_default=sa.text("'active'"), nullable=True),
        sa.Column("hospital_id", sa.UUID(), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.CheckConstraint("CAST(status AS text) IN ('active', 'inactive')", name=op.f("ck_module_master_status")),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospitals.hospital_id"], name=op.f("fk_module_master_hospital_id")),
        sa.ForeignKeyConstraint(["parent_module"], ["module_master.module_id"], name=op.f("fk_module_master_parent_module")),
        sa.PrimaryKeyConstraint("module_id", name=op.f("pk_module_master")),
        sa.UniqueConstraint(
            "hospital_id",
            "parent_module",
            "module_name",
            name=op.f("uq_module_master_hospital_id_parent_module_module_name"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(op.f("ix_module_master_parent_module"), "module_master", ["parent_module"], unique=False)
    op.create_table(
        "role_master",
        sa.Column("role_id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("hospital_id", sa.UUID(), nullable=True),
        sa.Column("role_name", sa.String(length=50), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=True),
        sa.Column("is_system_role", sa.Boolean(), server_default=sa.text("false"), nullable=True),
        sa.Column("status", sa.String(length=20), server_default=sa.text("'active'"), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.CheckConstraint("CAST(status AS text) IN ('active', 'inactive')", name=op.f("ck_role_master_status")),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospitals.hospital_id"], name=op.f("fk_role_master_hospital_id")),
        sa.PrimaryKeyConstraint("role_id", name=op.f("pk_role_master")),
        sa.UniqueConstraint(
            "hospital_id", "role_name", name=op.f("uq_role_master_hospital_id_role_name"), postgresql_nulls_not_distinct=True
        ),
    )
    op.create_table(
        "users",
        sa.Column("user_id", sa.String(length=15), nullable=False),
        sa.Column("hospital_id", sa.UUID(), nullable=True),
        sa.Column("entity_type", sa.String(length=10), nullable=False),
        sa.Column("entity_id", sa.UUID(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("failed_login_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_login", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verification_status", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("ui_preferences", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_by", sa.String(length=50), nullable=True),
        sa.CheckConstraint("CAST(entity_type AS text) IN ('staff', 'patient')", name=op.f("ck_users_entity_type")),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospitals.hospital_id"], name=op.f("fk_users_hospital_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users")),
    )
    op.create_index("ix_users_entity", "users", ["entity_type", "entity_id"], unique=False)
    op.create_index(op.f("ix_users_hospital_id"), "users", ["hospital_id"], unique=False)
    op.create_index(
        "ix_users_live",
        "users",
        ["hospital_id", "entity_type"],
        unique=False,
        postgresql_where=sa.text("NOT is_deleted AND is_active"),
    )
    op.create_table(
        "patients",
        sa.Column("hospital_id", sa.UUID(), nullable=False),
        sa.Column("patient_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("branch_id", sa.UUID(), nullable=True),
        sa.Column("mrn", sa.String(length=20), nullable=True),
        sa.Column("title", sa.String(length=10), nullable=True),
        sa.Column("first_name", sa.String(length=100), nullable=True),
        sa.Column("last_name", sa.String(length=100), nullable=True),
        sa.Column("blood_group", sa.String(length=5), nullable=True),
        sa.Column("personal_info", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("contact_info", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("medical_info", sa.Text(), nullable=True),
        sa.Column("emergency_contact", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("documents", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("preferences", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_by", sa.String(length=50), nullable=True),
        sa.CheckConstraint(
            "CAST(blood_group AS text) IN ('A+', 'A-', 'B+', 'B-', 'AB+', 'AB-', 'O+', 'O-')",
            name=op.f("ck_patients_blood_group"),
        ),
        sa.ForeignKeyConstraint(
            ["hospital_id", "branch_id"],
            ["branches.hospital_id", "branches.branch_id"],
            name=op.f("fk_patients_hospital_id_branch_id"),
        ),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospitals.hospital_id"], name=op.f("fk_patients_hospital_id")),
        sa.PrimaryKeyConstraint("patient_id", name=op.f("pk_patients")),
        sa.UniqueConstraint("hospital_id", "mrn", name=op.f("uq_patients_hospital_id_mrn")),
    )
    op.create_index(op.f("ix_patients_hospital_id"), "patients", ["hospital_id"], unique=False)
    op.create_index("ix_patients_hospital_id_branch_id", "patients", ["hospital_id", "branch_id"], unique=False)
    op.create_index(
        "ix_patients_live",
        "patients",
        ["hospital_id", "last_name", "first_name"],
        unique=False,
        postgresql_where=sa.text("NOT is_deleted AND is_active"),
    )
    op.create_table(
        "role_module_access",
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.Column("module_id", sa.Integer(), nullable=False),
        sa.Column("can_view", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_add", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_edit", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_delete", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("can_export", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("hospital_id", sa.UUID(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospitals.hospital_id"], name=op.f("fk_role_module_access_hospital_id")),
        sa.ForeignKeyConstraint(
            ["module_id"], ["module_master.module_id"], name=op.f("fk_role_module_access_module_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["role_id"], ["role_master.role_id"], name=op.f("fk_role_module_access_role_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("role_id", "module_id", name=op.f("pk_role_module_access")),
    )
    op.create_index(op.f("ix_role_module_access_hospital_id"), "role_module_access", ["hospital_id"], unique=False)
    op.create_index(op.f("ix_role_module_access_module_id"), "role_module_access", ["module_id"], unique=False)
    op.create_table(
        "staff",
        sa.Column("hospital_id", sa.UUID(), nullable=False),
        sa.Column("staff_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("branch_id", sa.UUID(), nullable=True),
        sa.Column("employee_code", sa.String(length=20), nullable=True),
        sa.Column("staff_type", sa.String(length=20), nullable=True),
        sa.Column("title", sa.String(length=10), nullable=True),
        sa.Column("specialization", sa.String(length=100), nullable=True),
        sa.Column("first_name", sa.String(length=100), nullable=True),
        sa.Column("last_name", sa.String(length=100), nullable=True),
        sa.Column("personal_info", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("contact_info", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("professional_info", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("employment_info", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("documents", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_by", sa.String(length=50), nullable=True),
        sa.ForeignKeyConstraint(
            ["hospital_id", "branch_id"],
            ["branches.hospital_id", "branches.branch_id"],
            name=op.f("fk_staff_hospital_id_branch_id"),
        ),
        sa.ForeignKeyConstraint(["hospital_id"], ["hospitals.hospital_id"], name=op.f("fk_staff_hospital_id")),
        sa.PrimaryKeyConstraint("staff_id", name=op.f("pk_staff")),
        sa.UniqueConstraint("hospital_id", "employee_code", name=op.f("uq_staff_hospital_id_employee_code")),
    )
    op.create_index(op.f("ix_staff_hospital_id"), "staff", ["hospital_id"], unique=False)
    op.create_index("ix_staff_hospital_id_branch_id", "staff", ["hospital_id", "branch_id"], unique=False)
    op.create_index(
        "ix_staff_live",
        "staff",
        ["hospital_id", "staff_type", "last_name"],
        unique=False,
        postgresql_where=sa.text("NOT is_deleted AND is_active"),
    )
    op.create_table(
        "user_role_mapping",
        sa.Column("user_id", sa.String(length=15), nullable=False),
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.ForeignKeyConstraint(["role_id"], ["role_master.role_id"], name=op.f("fk_user_role_mapping_role_id")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_user_role_mapping_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "role_id", name=op.f("pk_user_role_mapping")),
    )
    op.create_index(op.f("ix_user_role_mapping_role_id"), "user_role_mapping", ["role_id"], unique=False)
    op.create_table(
        "user_sessions",
        sa.Column("session_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.String(length=15), nullable=False),
        sa.Column("token", sa.String(length=500), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], name=op.f("fk_user_sessions_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_user_sessions")),
    )
    op.create_index(
        "ix_user_sessions_live",
        "user_sessions",
        ["user_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("is_active"),
    )
    op.create_index(op.f("ix_user_sessions_user_id"), "user_sessions", ["user_id"], unique=False)
    op.create_table(
        "login_history",
        sa.Column("history_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.String(length=15), nullable=False),
        sa.Column("session_id", sa.UUID(), nullable=True),
        sa.Column("login_time", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("logout_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ip_address", sa.String(length=45), nullable=True),
        sa.Column("user_agent", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("failure_reason", sa.String(length=100), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.String(length=50), nullable=True),
        sa.Column("updated_by", sa.String(length=50), nullable=True),
        sa.CheckConstraint("CAST(status AS text) IN ('success', 'failed')", name=op.f("ck_login_history_status")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["user_sessions.session_id"], name=op.f("fk_login_history_session_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], name=op.f("fk_login_history_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("history_id", name=op.f("pk_login_history")),
    )
    op.create_index(op.f("ix_login_history_session_id"), "login_history", ["session_id"], unique=False)
    op.create_index("ix_login_history_user_id_login_time", "login_history", ["user_id", "login_time"], unique=False)


def downgrade() -> None:
    """Drop the core tables."""
    op.drop_index("ix_login_history_user_id_login_time", table_name="login_history")
    op.drop_index(op.f("ix_login_history_session_id"), table_name="login_history")
    op.drop_table("login_history")
    op.drop_index(op.f("ix_user_sessions_user_id"), table_name="user_sessions")
    op.drop_index("ix_user_sessions_live", table_name="user_sessions", postgresql_where=sa.text("is_active"))
    op.drop_table("user_sessions")
    op.drop_index(op.f("ix_user_role_mapping_role_id"), table_name="user_role_mapping")
    op.drop_table("user_role_mapping")
    op.drop_index("ix_staff_live", table_name="staff", postgresql_where=sa.text("NOT is_deleted AND is_active"))
    op.drop_index("ix_staff_hospital_id_branch_id", table_name="staff")
    op.drop_index(op.f("ix_staff_hospital_id"), table_name="staff")
    op.drop_table("staff")
    op.drop_index(op.f("ix_role_module_access_module_id"), table_name="role_module_access")
    op.drop_index(op.f("ix_role_module_access_hospital_id"), table_name="role_module_access")
    op.drop_table("role_module_access")
    op.drop_index("ix_patients_live", table_name="patients", postgresql_where=sa.text("NOT is_deleted AND is_active"))
    op.drop_index("ix_patients_hospital_id_branch_id", table_name="patients")
    op.drop_index(op.f("ix_patients_hospital_id"), table_name="patients")
    op.drop_table("patients")
    op.drop_index("ix_users_live", table_name="users", postgresql_where=sa.text("NOT is_deleted AND is_active"))
    op.drop_index(op.f("ix_users_hospital_id"), table_name="users")
    op.drop_index("ix_users_entity", table_name="users")
    op.drop_table("users")
    op.drop_table("role_master")
    op.drop_index(op.f("ix_module_master_parent_module"), table_name="module_master")
    op.drop_table("module_master")
    op.drop_index("ix_branches_live", table_name="branches", postgresql_where=sa.text("NOT is_deleted AND is_active"))
    op.drop_index(op.f("ix_branches_hospital_id"), table_name="branches")
    op.drop_table("branches")
    op.drop_table("parameter_settings")
    op.drop_table("hospitals")
