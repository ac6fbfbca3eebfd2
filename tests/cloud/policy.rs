//! A caller who may do what a policy says, and the policy of a tool's README.

use super::Cloud;
use serde_json::{Value, json};

/// A user of the account who may do what a policy says, and nothing else.
pub(crate) struct Caller {
    id: String,
    secret: String,
}

impl Caller {
    pub(crate) fn new(cloud: &Cloud, name: &str, policy: &Value) -> Self {
        cloud.call("iam", "create_user", json!({"UserName": name}));
        let document = policy.to_string();
        let put = json!({"UserName": name, "PolicyName": "least", "PolicyDocument": document});
        cloud.call("iam", "put_user_policy", put);
        let made = cloud.call("iam", "create_access_key", json!({"UserName": name}));
        let key = |name: &str| made["AccessKey"][name].as_str().unwrap().to_owned();
        Self { id: key("AccessKeyId"), secret: key("SecretAccessKey") }
    }

    pub(crate) fn key(&self) -> (&str, &str) {
        (&self.id, &self.secret)
    }
}

/// The first policy in the README of a tool, with this cloud's region and account.
pub(crate) fn of_the_readme(tool: &str) -> Value {
    let path = format!("{}/../bins/{tool}/README.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut blocks = text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let policy = blocks.find(|block| block.contains("\"Statement\"")).unwrap();
    let policy = policy.replace("REGION", "us-east-1").replace("ACCOUNT", "123456789012");
    serde_json::from_str(&policy).unwrap()
}

/// The policy without an action.
pub(crate) fn without(policy: &Value, action: &str) -> Value {
    let mut policy = policy.clone();
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Action"] != action);
    for statement in statements {
        if let Some(actions) = statement["Action"].as_array_mut() {
            actions.retain(|found| found != action);
        }
    }
    // A statement without an action is none.
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Action"].as_array().is_none_or(|all| !all.is_empty()));
    policy
}
