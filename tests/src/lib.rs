//! Tests only: contracts between the tools, repository checks (`it`) and the rehearsal (`rehearsal`).
