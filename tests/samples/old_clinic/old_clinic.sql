SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA claims;

CREATE SCHEMA deprecated_stuff;

CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public;

COMMENT ON EXTENSION pgcrypto IS 'cryptographic functions';

CREATE FUNCTION public.bill_total(which uuid) RETURNS numeric
    LANGUAGE sql STABLE
    AS $$SELECT coalesce(sum(amount), 0) FROM public.bill_lines WHERE bill_id = which$$;

CREATE FUNCTION public.update_timestamp() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.updated_at = now() AT TIME ZONE 'UTC';
    RETURN NEW;
END $$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE claims.claim_files (
    claim_id uuid NOT NULL,
    bill_id uuid NOT NULL,
    stage character varying(4) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT chk_claim_files_stage CHECK (((stage)::text = ANY ((ARRAY['open'::character varying, 'paid'::character varying])::text[])))
);

CREATE TABLE deprecated_stuff.coupons (
    coupon character varying(12) NOT NULL,
    worth numeric(8,2),
    patient_id uuid,
    CONSTRAINT coupons_worth_check CHECK ((worth > (0)::numeric))
);

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE public.bill_lines (
    line_id integer NOT NULL,
    bill_id uuid NOT NULL,
    quantity numeric(8,2) NOT NULL,
    price numeric(12,2) NOT NULL,
    slip_id uuid,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    amount numeric(14,2) GENERATED ALWAYS AS (round((quantity * price), 2)) STORED
);

CREATE SEQUENCE public.bill_lines_line_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.bill_lines_line_id_seq OWNED BY public.bill_lines.line_id;

CREATE SEQUENCE public.bill_no_seq
    START WITH 4000
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.bills (
    bill_id uuid NOT NULL,
    hospital_id uuid NOT NULL,
    patient_id uuid NOT NULL,
    bill_no character varying(30) NOT NULL,
    billed_on date,
    gross numeric(10,2) NOT NULL,
    memo character varying(500),
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.branches (
    branch_id uuid NOT NULL,
    hospital_id uuid NOT NULL,
    name character varying(100) NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.hospitals (
    hospital_id uuid NOT NULL,
    name character varying(100) NOT NULL,
    license_no character varying(50),
    head_id uuid,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    fax character varying(20)
);

CREATE TABLE public.login_history (
    history_id bigint NOT NULL,
    user_id character varying(15) NOT NULL,
    status character varying(20),
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE SEQUENCE public.login_history_history_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.login_history_history_id_seq OWNED BY public.login_history.history_id;

CREATE MATERIALIZED VIEW public.monthly_income AS
 SELECT (date_trunc('month'::text, (billed_on)::timestamp with time zone))::date AS month,
    sum(gross) AS gross
   FROM public.bills
  GROUP BY ((date_trunc('month'::text, (billed_on)::timestamp with time zone))::date)
  WITH NO DATA;

CREATE VIEW public.open_bills_view AS
 SELECT bill_id,
    gross
   FROM public.bills
  WHERE ((memo)::text IS DISTINCT FROM 'paid'::text);

CREATE TABLE public.patients (
    patient_id uuid NOT NULL,
    hospital_id uuid NOT NULL,
    file_no character varying(20),
    last_name character varying(60) NOT NULL,
    phone character varying(15),
    blood character varying(2),
    state character varying(20) NOT NULL,
    tags text[],
    is_deleted boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    legacy_card_no character varying(20),
    full_name character varying(200),
    CONSTRAINT chk_patients_blood CHECK (((blood)::text = ANY ((ARRAY['A'::character varying, 'B'::character varying, 'AB'::character varying, 'O'::character varying])::text[]))),
    CONSTRAINT chk_patients_phone_digits CHECK (((phone)::text ~ '^[0-9]+$'::text))
);

COMMENT ON TABLE public.patients IS 'never delete here, hide';

CREATE VIEW public.phone_book AS
 SELECT last_name,
    phone
   FROM public.patients
  WHERE ((state)::text = ANY ((ARRAY['active'::character varying, 'travelling'::character varying])::text[]));

CREATE TABLE public.role_master (
    role_id integer NOT NULL,
    role_name character varying(60) NOT NULL,
    status character varying(20) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE SEQUENCE public.role_master_role_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.slips (
    slip_id uuid NOT NULL,
    staff_id uuid,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.staff (
    staff_id uuid NOT NULL,
    hospital_id uuid NOT NULL,
    branch_id uuid,
    chief_id uuid,
    last_name character varying(80) NOT NULL,
    contact_info jsonb,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.users (
    user_id character varying(15) NOT NULL,
    hospital_id uuid,
    entity_type character varying(10) NOT NULL,
    entity_id uuid NOT NULL,
    password_hash character varying(255),
    failed_login_attempts integer,
    is_active boolean,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT users_entity_type_check CHECK (((entity_type)::text = ANY ((ARRAY['staff'::character varying, 'patient'::character varying])::text[])))
);

CREATE TABLE public.vendors (
    vendor_id integer NOT NULL,
    name character varying(80) NOT NULL,
    tax_number character varying(20),
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE SEQUENCE public.vendors_vendor_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.vendors_vendor_id_seq OWNED BY public.vendors.vendor_id;

CREATE TABLE public.zz_restore_probe (
    id integer,
    said text,
    updated_at timestamp with time zone
);

ALTER TABLE ONLY public.bill_lines ALTER COLUMN line_id SET DEFAULT nextval('public.bill_lines_line_id_seq'::regclass);

ALTER TABLE ONLY public.login_history ALTER COLUMN history_id SET DEFAULT nextval('public.login_history_history_id_seq'::regclass);

ALTER TABLE ONLY public.vendors ALTER COLUMN vendor_id SET DEFAULT nextval('public.vendors_vendor_id_seq'::regclass);

INSERT INTO claims.claim_files VALUES ('a9f7e979-65d6-cf79-9a52-9102a973b8b9', '9ce88802-f075-91e5-ce04-57ef51ece021', 'open', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO deprecated_stuff.coupons VALUES ('FREE', 10.00, 'ec6ef230-f182-8039-ee79-4566b9c58adc');

INSERT INTO public.bill_lines VALUES (1, 'fc46f8e7-0489-b90f-a373-d93109479ca5', 1.00, 2.50, '377fd569-971e-edeb-a8fb-ea28434a390a', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (2, '51d4b581-d21c-20a1-6147-b17c3adc7867', 2.00, 2.50, '40e1c2df-2064-2dba-8efa-dfd398761057', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (3, 'a9818d53-3a6a-8673-04dd-2a16f5644215', 3.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (4, '8cabafd3-576a-b487-31c8-ab59e0349a0e', 4.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (5, '0d6f7d4c-bf5d-538f-1ded-ea4c6b775617', 5.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (6, 'b9efb796-97c2-6434-d28f-acc83436f8e5', 6.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (7, '5a320611-59a3-0eee-bb30-9052be870e00', 7.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (8, '115f46b6-059d-202a-4373-2ca79b096347', 8.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (9, 'e2e0ac09-6d68-75f5-2424-140f51904876', 9.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (10, 'a9b34e8f-45ce-9217-b791-98e094c26352', 10.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (11, 'a256d79d-5af8-92e9-a29d-350adf822efe', 11.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (12, '9ce88802-f075-91e5-ce04-57ef51ece021', 12.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (13, 'fc46f8e7-0489-b90f-a373-d93109479ca5', 13.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (14, '51d4b581-d21c-20a1-6147-b17c3adc7867', 14.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (15, 'a9818d53-3a6a-8673-04dd-2a16f5644215', 15.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (16, '8cabafd3-576a-b487-31c8-ab59e0349a0e', 16.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (17, '0d6f7d4c-bf5d-538f-1ded-ea4c6b775617', 17.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (18, 'b9efb796-97c2-6434-d28f-acc83436f8e5', 18.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (19, '5a320611-59a3-0eee-bb30-9052be870e00', 19.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);
INSERT INTO public.bill_lines VALUES (20, '115f46b6-059d-202a-4373-2ca79b096347', 20.00, 2.50, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', DEFAULT);

INSERT INTO public.bills VALUES ('9ce88802-f075-91e5-ce04-57ef51ece021', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'ec6ef230-f182-8039-ee79-4566b9c58adc', 'B1', '2024-02-01', 100.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('fc46f8e7-0489-b90f-a373-d93109479ca5', '346b81a3-2e70-07ec-cadf-60252bb599f0', '1d665b9b-1467-944c-128a-5575119d1cfd', 'B2', '2024-02-01', 200.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('51d4b581-d21c-20a1-6147-b17c3adc7867', '346b81a3-2e70-07ec-cadf-60252bb599f0', '7bc3ca68-7694-37ce-9864-55407dab2a1f', 'B3', '2024-02-01', 300.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('a9818d53-3a6a-8673-04dd-2a16f5644215', '346b81a3-2e70-07ec-cadf-60252bb599f0', '13207e3d-5722-030f-6c97-d69b4904d39d', 'B4', '2024-02-01', 400.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('8cabafd3-576a-b487-31c8-ab59e0349a0e', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'ed92eff8-13a0-2a31-a267-7be0563a0739', 'B5', '2024-02-01', 500.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('0d6f7d4c-bf5d-538f-1ded-ea4c6b775617', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'c6c27fc9-8633-c825-71d7-5dcb5739bbdf', 'B6', '2024-02-01', 600.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('b9efb796-97c2-6434-d28f-acc83436f8e5', '346b81a3-2e70-07ec-cadf-60252bb599f0', '46d46a75-9bf6-cbed-05d7-bcdcb911a4f8', 'B7', '2024-02-01', 700.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('5a320611-59a3-0eee-bb30-9052be870e00', '346b81a3-2e70-07ec-cadf-60252bb599f0', '2e3f209d-4f2b-b346-67dd-e08e3c9585f1', 'B8', '2024-02-01', 800.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('115f46b6-059d-202a-4373-2ca79b096347', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'd9a9d61e-f9ac-1fb4-62fb-3ce61f509700', 'B9', '2024-02-01', 900.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('e2e0ac09-6d68-75f5-2424-140f51904876', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'ad304601-e663-8bf2-bcdd-5345c013a6c1', 'B10', '2024-02-01', 1000.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('a9b34e8f-45ce-9217-b791-98e094c26352', '346b81a3-2e70-07ec-cadf-60252bb599f0', '52053048-deca-a0cb-d3c2-dcf5871e5da4', 'B11', '2024-02-01', 1100.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.bills VALUES ('a256d79d-5af8-92e9-a29d-350adf822efe', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'd3d078bf-2fc1-425e-6d44-10ccb6ed6df9', 'B12', NULL, 1200.00, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.branches VALUES ('edbab455-72c7-2a5d-9440-b40bcc0500c0', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'Branch 1', true, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.branches VALUES ('fbfba2e4-5c20-45dc-5cab-22a5afe83d9d', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'Branch 2', true, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.branches VALUES ('7a6f150b-8309-1ce2-0c89-368641f9a137', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'Branch 3', true, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.branches VALUES ('3dfe5631-03ab-11be-c75b-b5081e7a1dbe', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'Branch 4', true, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.hospitals VALUES ('346b81a3-2e70-07ec-cadf-60252bb599f0', 'Hospital 1', 'HC123456', 'fac98944-7cad-2edb-c89f-bcba70003b36', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL);
INSERT INTO public.hospitals VALUES ('490b2834-e657-37c1-fce9-5e468cc8b8bf', 'Hospital 2', 'HC123457', 'fac98944-7cad-2edb-c89f-bcba70003b36', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL);

INSERT INTO public.login_history VALUES (1, '9100000001', 'locked', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (2, '9100000001', NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (3, '9100000001', 'success', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (4, '9100000001', 'locked', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (5, '9100000001', NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (6, '9100000001', 'success', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (7, '9100000001', 'locked', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (8, '9100000001', NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.login_history VALUES (9, '9100000001', 'success', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.patients VALUES ('ec6ef230-f182-8039-ee79-4566b9c58adc', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F1', 'Patient 1', '9000000001', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('1d665b9b-1467-944c-128a-5575119d1cfd', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F2', 'Patient 2', '9000000002', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('7bc3ca68-7694-37ce-9864-55407dab2a1f', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F3', 'Patient 3', '9000000003', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('13207e3d-5722-030f-6c97-d69b4904d39d', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F4', 'Patient 4', '9000000004', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('ed92eff8-13a0-2a31-a267-7be0563a0739', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F5', 'Patient 5', '9000000005', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('c6c27fc9-8633-c825-71d7-5dcb5739bbdf', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F6', 'Patient 6', '9000000006', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('46d46a75-9bf6-cbed-05d7-bcdcb911a4f8', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F7', 'Patient 7', '9000000007', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('2e3f209d-4f2b-b346-67dd-e08e3c9585f1', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F8', 'Patient 8', '9000000008', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('d9a9d61e-f9ac-1fb4-62fb-3ce61f509700', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F9', 'Patient 9', '9000000009', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('ad304601-e663-8bf2-bcdd-5345c013a6c1', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F10', 'Patient 10', '9000000010', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('52053048-deca-a0cb-d3c2-dcf5871e5da4', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F11', 'Patient 11', '9000000011', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('d3d078bf-2fc1-425e-6d44-10ccb6ed6df9', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F12', 'Patient 12', '9000000012', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('f4fc7371-dbc6-aba6-7d64-fe6a3c76df2f', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F13', 'Patient 13', '9000000013', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('989ae4f0-a2ea-31db-452b-35e0d9980e6f', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F14', 'Patient 14', '9000000014', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('a60812a2-68ab-c3f1-f5c5-6ddc205e5a23', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F15', 'Patient 15', '9000000015', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('5e9ac5d7-87f7-bdd0-fa73-b873ad4f278e', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F16', 'Patient 16', '9000000016', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('e9257cc1-4147-de69-00b8-f5c69aadb9df', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F17', 'Patient 17', '9000000017', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('dea53267-ffa7-7734-2a34-10049824378e', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F18', 'Patient 18', '9000000018', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('919d250e-0268-3667-351d-5452a3a2a2e9', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F19', 'Patient 19', '9000000019', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('f908f971-3014-11a4-259e-e45a8d1bc08d', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F20', 'Patient 20', '9000000020', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('22119ec7-6d92-563d-121d-645530848a2f', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F21', 'Patient 21', '9000000021', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('02c76661-49d5-1f4c-0e25-3ce76f25e87c', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F22', 'Patient 22', '9000000022', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('889201a3-dd5c-fc1c-eae6-8e330da06215', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F23', 'Patient 23', '9000000023', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('518fd46d-ddb3-f97e-1761-98f08ec766d6', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F24', 'Patient 24', '9000000024', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('fbf9c52e-c985-00e3-6e1f-975d28bb4afa', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F25', 'Patient 25', '9000000025', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('6a1b6dfe-f463-3061-e8f8-6e896ccf2a8a', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F26', 'Patient 26', '9000000026', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('6266e0c4-6643-3d83-9dc5-e3d205fcb7c6', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F27', 'Patient 27', '9000000027', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('c85a4a9c-d61c-130f-d525-ea36becac235', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F28', 'Patient 28', '9000000028', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('8f52a562-5438-731b-5c64-7f76009f1489', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'F29', 'Patient 29', '9000000029', NULL, 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);
INSERT INTO public.patients VALUES ('ff41163c-57ea-8378-b801-dea44ff5429c', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'F30', 'Patient 30', '9000000030', 'AB', 'active', NULL, false, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', NULL, NULL);

INSERT INTO public.role_master VALUES (1, 'Role 1', 'active', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.role_master VALUES (2, 'Role 2', 'active', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.role_master VALUES (3, 'Role 3', 'retired', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.role_master VALUES (4, 'Role 4', 'active', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.role_master VALUES (5, 'Role 5', 'active', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.slips VALUES ('377fd569-971e-edeb-a8fb-ea28434a390a', '8ddf8780-39b7-0767-c4a5-bcf4f0c4f65e', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.staff VALUES ('8ddf8780-39b7-0767-c4a5-bcf4f0c4f65e', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'fbfba2e4-5c20-45dc-5cab-22a5afe83d9d', NULL, 'Staff 1', '{}', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.staff VALUES ('fac98944-7cad-2edb-c89f-bcba70003b36', '346b81a3-2e70-07ec-cadf-60252bb599f0', '7a6f150b-8309-1ce2-0c89-368641f9a137', NULL, 'Staff 2', '{}', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.staff VALUES ('c0828e03-8173-0bef-d1f7-a025057c74fb', '490b2834-e657-37c1-fce9-5e468cc8b8bf', '3dfe5631-03ab-11be-c75b-b5081e7a1dbe', NULL, 'Staff 3', '{}', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.staff VALUES ('7e7cb681-4b74-d659-6098-fc80127569a5', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'edbab455-72c7-2a5d-9440-b40bcc0500c0', NULL, 'Staff 4', '{}', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.staff VALUES ('437f5780-9f82-b9e2-947f-70fd488eb536', '490b2834-e657-37c1-fce9-5e468cc8b8bf', 'fbfba2e4-5c20-45dc-5cab-22a5afe83d9d', NULL, 'Staff 5', '{}', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.staff VALUES ('425db905-039f-7a65-59ce-1115efa7d397', '346b81a3-2e70-07ec-cadf-60252bb599f0', '7a6f150b-8309-1ce2-0c89-368641f9a137', NULL, 'Staff 6', NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.users VALUES ('9100000001', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'staff', '50c1f58b-e7f5-e47e-0f53-d64c094783c2', 'scrypt:32768:8:1$salt$00ff', NULL, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.users VALUES ('9100000002', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'staff', 'fac98944-7cad-2edb-c89f-bcba70003b36', 'pbkdf2:sha256:260000$salt$00ff', NULL, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.users VALUES ('9100000003', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'staff', 'c0828e03-8173-0bef-d1f7-a025057c74fb', '$2b$12$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', NULL, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.users VALUES ('9100000004', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'staff', '7e7cb681-4b74-d659-6098-fc80127569a5', 'sha256$salt$00ff', NULL, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.users VALUES ('9100000005', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'staff', '437f5780-9f82-b9e2-947f-70fd488eb536', 'letmein', NULL, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.users VALUES ('9100000006', '346b81a3-2e70-07ec-cadf-60252bb599f0', 'staff', '425db905-039f-7a65-59ce-1115efa7d397', '', NULL, NULL, '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.vendors VALUES (1, 'One', 'T1', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.vendors VALUES (2, 'Two', 'T1', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');
INSERT INTO public.vendors VALUES (3, 'Three', 'T2', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00');

INSERT INTO public.zz_restore_probe VALUES (1, 'hello', NULL);

SELECT pg_catalog.setval('public.bill_lines_line_id_seq', 20, true);

SELECT pg_catalog.setval('public.bill_no_seq', 4000, false);

SELECT pg_catalog.setval('public.login_history_history_id_seq', 9, true);

SELECT pg_catalog.setval('public.role_master_role_id_seq', 2, true);

SELECT pg_catalog.setval('public.vendors_vendor_id_seq', 3, true);

ALTER TABLE ONLY claims.claim_files
    ADD CONSTRAINT claim_files_pkey PRIMARY KEY (claim_id);

ALTER TABLE ONLY deprecated_stuff.coupons
    ADD CONSTRAINT coupons_pkey PRIMARY KEY (coupon);

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.bill_lines
    ADD CONSTRAINT bill_lines_pkey PRIMARY KEY (line_id);

ALTER TABLE ONLY public.bills
    ADD CONSTRAINT bills_bill_no_key UNIQUE (bill_no);

ALTER TABLE ONLY public.bills
    ADD CONSTRAINT bills_pkey PRIMARY KEY (bill_id);

ALTER TABLE ONLY public.branches
    ADD CONSTRAINT branches_pkey PRIMARY KEY (branch_id);

ALTER TABLE ONLY public.hospitals
    ADD CONSTRAINT hospitals_license_no_key UNIQUE (license_no);

ALTER TABLE ONLY public.hospitals
    ADD CONSTRAINT hospitals_pkey PRIMARY KEY (hospital_id);

ALTER TABLE ONLY public.login_history
    ADD CONSTRAINT login_history_pkey PRIMARY KEY (history_id);

ALTER TABLE ONLY public.patients
    ADD CONSTRAINT patients_file_no_key UNIQUE (file_no);

ALTER TABLE ONLY public.patients
    ADD CONSTRAINT patients_pkey PRIMARY KEY (patient_id);

ALTER TABLE ONLY public.role_master
    ADD CONSTRAINT role_master_pkey PRIMARY KEY (role_id);

ALTER TABLE ONLY public.slips
    ADD CONSTRAINT slips_pkey PRIMARY KEY (slip_id);

ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_pkey PRIMARY KEY (staff_id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY public.vendors
    ADD CONSTRAINT vendors_pkey PRIMARY KEY (vendor_id);

CREATE INDEX idx_patients_phone ON public.patients USING btree (phone);

CREATE INDEX ix_patients_active ON public.patients USING btree (last_name) WHERE ((state)::text = ANY (ARRAY[('active'::character varying)::text, ('travelling'::character varying)::text]));

CREATE TRIGGER trg_bills_touch BEFORE INSERT OR UPDATE ON public.bills FOR EACH ROW EXECUTE FUNCTION public.update_timestamp();

ALTER TABLE public.bills DISABLE TRIGGER trg_bills_touch;

CREATE TRIGGER trg_patients_touch BEFORE INSERT OR UPDATE ON public.patients FOR EACH ROW EXECUTE FUNCTION public.update_timestamp();

CREATE TRIGGER trg_users_touch BEFORE INSERT OR UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.update_timestamp();

CREATE TRIGGER trg_zz_restore_probe_touch BEFORE UPDATE ON public.zz_restore_probe FOR EACH ROW EXECUTE FUNCTION public.update_timestamp();

ALTER TABLE ONLY claims.claim_files
    ADD CONSTRAINT claim_files_bill_id_fkey FOREIGN KEY (bill_id) REFERENCES public.bills(bill_id);

ALTER TABLE ONLY deprecated_stuff.coupons
    ADD CONSTRAINT coupons_patient_id_fkey FOREIGN KEY (patient_id) REFERENCES public.patients(patient_id);

ALTER TABLE ONLY public.bill_lines
    ADD CONSTRAINT bill_lines_bill_id_fkey FOREIGN KEY (bill_id) REFERENCES public.bills(bill_id);

ALTER TABLE ONLY public.bills
    ADD CONSTRAINT bills_hospital_id_fkey FOREIGN KEY (hospital_id) REFERENCES public.hospitals(hospital_id);

ALTER TABLE ONLY public.bills
    ADD CONSTRAINT bills_patient_id_fkey FOREIGN KEY (patient_id) REFERENCES public.patients(patient_id);

ALTER TABLE ONLY public.branches
    ADD CONSTRAINT branches_hospital_id_fkey FOREIGN KEY (hospital_id) REFERENCES public.hospitals(hospital_id);

ALTER TABLE ONLY public.hospitals
    ADD CONSTRAINT hospitals_head_id_fkey FOREIGN KEY (head_id) REFERENCES public.staff(staff_id);

ALTER TABLE ONLY public.login_history
    ADD CONSTRAINT login_history_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(user_id);

ALTER TABLE ONLY public.patients
    ADD CONSTRAINT patients_hospital_id_fkey FOREIGN KEY (hospital_id) REFERENCES public.hospitals(hospital_id);

ALTER TABLE ONLY public.slips
    ADD CONSTRAINT slips_staff_id_fkey FOREIGN KEY (staff_id) REFERENCES public.staff(staff_id);

ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_branch_id_fkey FOREIGN KEY (branch_id) REFERENCES public.branches(branch_id);

ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_chief_id_fkey FOREIGN KEY (chief_id) REFERENCES public.staff(staff_id);

ALTER TABLE ONLY public.staff
    ADD CONSTRAINT staff_hospital_id_fkey FOREIGN KEY (hospital_id) REFERENCES public.hospitals(hospital_id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_hospital_id_fkey FOREIGN KEY (hospital_id) REFERENCES public.hospitals(hospital_id);

REFRESH MATERIALIZED VIEW public.monthly_income;

