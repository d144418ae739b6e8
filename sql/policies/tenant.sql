/*
version = 1
summary = "work for a hospital sees and changes the rows of that hospital alone"

[[policy]]
name = "tenant"
columns = ["hospital_id"]
using = "hospital_id = nullif(current_setting('app.current_hospital', true), '')::uuid"

[[policy]]
name = "tenant_of_system"
columns = ["hospital_id"]
nullable = true
for = "SELECT"
using = "hospital_id IS NULL"

[[policy]]
name = "tenant_all"
columns = ["hospital_id"]
to = "system"
using = "true"
*/
