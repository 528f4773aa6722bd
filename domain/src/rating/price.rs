use serde::{Deserialize, Serialize};

/// What something costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Price {
    /// Its key inside the plan.
    #[serde(default)]
    pub key: String,
    /// The meter whose usage it charges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
}
